"""Planning a training from a data set's fingerprint, by the rules that nnU-Net published.

Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation,
Nature Methods 18, 203-211 (2021), methods and supplement. Voxel size: the median, and along a coarse axis the
10th percentile. Patch: as large as memory allows, in the shape of the median image. Stages: an axis is halved
while it keeps enough voxels and its voxels are not twice as long as the shortest; kernels are flat along an
axis whose voxels are. Normalisation by what a channel is called.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Any, Literal

import numpy as np

from xlstm_unet.errors import ConfigError
from xlstm_unet.learn.config import TrainConfig
from xlstm_unet.learn.described import Description, labels_called
from xlstm_unet.learn.fingerprint import Fingerprint

Size = tuple[int, ...]
Variant = Literal["bot", "enc", "dense"]
Mixer = Literal["vil", "none"]

_ANISOTROPY = 3.0
_COARSE_PERCENTILE = 10
_FEWEST_VOXELS = 4
"""Voxels that every axis keeps at the deepest stage."""
_INITIAL_VOXELS = {2: 2048**2, 3: 256**3}
_LARGEST_WIDTH = {2: 512, 3: 320}
_VALUES = {2: 128_000_000, 3: 840_000_000}
"""Values of the feature maps of one plane or two volumes that fit 8 GB in a step of twelve and of two."""
_LEAST_BATCH = {2: 12, 3: 2}
_LARGEST_SHARE = 0.05
"""Share of all voxels of the data set that one batch may show."""
_FLAT_PATCH = 3.0
_FOREGROUND = 1 / 3


@dataclass(frozen=True)
class Wishes:
    """What the user decides.

    Parameters
    ----------
    network
        Variant of the network.
    mixer
        "none" leaves its ViL layers out.
    width
        Features of the first stage; they double at every further one.
    memory
        GB that a training step may take, roughly.
    task
        "instances" or "classes"; None for what the labels look like.
    """

    network: Variant = "bot"
    mixer: Mixer = "vil"
    width: int = 32
    memory: float = 8.0
    task: Literal["instances", "classes"] | None = None


@dataclass(frozen=True)
class Topology:
    """Stages of a network: strides and kernels, finest first."""

    strides: tuple[Size, ...]
    kernels: tuple[Size, ...]

    def divisor(self) -> Size:
        """Product of the strides along each axis."""
        return tuple(prod(axis) for axis in zip(*self.strides, strict=True))


def plan(name: str, found: Fingerprint, description: Description | None, wishes: Wishes) -> TrainConfig:
    """Return the configuration for a data set.

    Raises
    ------
    ConfigError
        If the images are too small, or the wishes do not fit them.
    """
    task = wishes.task or found.task
    spacing = target_spacing(found)
    sides = spacing or (1.0,) * found.dimension
    median = _median_shape(found, spacing)
    patch, topology = patch_and_topology(median, sides, wishes)
    model: dict[str, Any] = {
        "name": name,
        "dimension": found.dimension,
        "input_channels": found.channels,
        "accepts_gray": found.mixed,
        "task": task,
        "orientation": found.orientation,
        "patch_size": patch,
        "spacing": spacing,
        "spacing_unit": None if spacing is None else found.unit,
        "normalisation": _normalisation(found, description, task),
        "network": _network(topology, wishes, found.dimension),
        **_labels(found, description, task),
    }
    if description is not None and len(description.channels) == found.channels:
        model["channel_names"] = description.channels
    fields = {
        "model": model,
        "sampling": {"batch": _batch(found, median, patch, topology, wishes), "foreground": _FOREGROUND},
        "geometry": _geometry(patch, found.dimension, task),
        "intensity": {"invert": 0.0, "gray": 0.0, "colour": 0.0, "tint": 0.0, "strength": 0.7},
        "optimiser": {"weight_decay": 0.05},
        "losses": {"scales": [0.5**level for level in range(len(topology.strides) - 1)]},
    }
    try:
        return TrainConfig.model_validate(fields)
    except ValueError as error:
        raise ConfigError(f"The plan for {name} is not valid: {error}.") from error


def target_spacing(found: Fingerprint) -> tuple[float, ...] | None:
    """Return the voxel size to train at: the median, finer along a coarse axis; None where it is unknown."""
    if found.spacings is None:
        return None
    target = np.median(found.spacings, axis=0)
    if found.dimension == 3:
        sizes = np.median(found.shapes * found.spacings / target, axis=0)
        coarse = int(target.argmax())
        others = np.delete(target, coarse)
        few = sizes[coarse] * _ANISOTROPY < np.delete(sizes, coarse).min()
        if target[coarse] > _ANISOTROPY * others.max() and few:
            finer = np.percentile(found.spacings[:, coarse], _COARSE_PERCENTILE)
            target[coarse] = max(finer, others.max())
    return tuple(float(f"{side:.5g}") for side in target)


def patch_and_topology(median: Size, sides: Sequence[float], wishes: Wishes) -> tuple[Size, Topology]:
    """Return the largest patch in the shape of the median image that fits into memory, and its stages."""
    dimension = len(median)
    inverse = [1 / side for side in sides]
    edge = (_INITIAL_VOXELS[dimension] / prod(inverse)) ** (1 / dimension)
    patch = tuple(min(round(n * edge), most) for n, most in zip(inverse, median, strict=True))
    budget = _VALUES[dimension] * wishes.memory / 8
    topology = stages(patch, sides)
    patch = _divisible(patch, topology)
    while _values(patch, topology, wishes) > budget:
        # The axis that the patch covers most of gives way.
        step = topology.divisor()
        ratios = [
            n / most if n > max(s, 2 * _FEWEST_VOXELS) else 0.0
            for n, most, s in zip(patch, median, step, strict=True)
        ]
        axis = int(np.argmax(ratios))
        if not ratios[axis]:
            break
        smaller = tuple(n - step[i] if i == axis else n for i, n in enumerate(patch))
        topology = stages(smaller, sides)
        patch = _divisible(smaller, topology)
    return patch, topology


def stages(patch: Size, sides: Sequence[float]) -> Topology:
    """Return strides and kernels for a patch.

    Raises
    ------
    ConfigError
        If the patch is too small for two stages.
    """
    size, length = list(patch), list(sides)
    axes = range(len(patch))
    kernel = [1] * len(patch)
    strides, kernels = [(1,) * len(patch)], []
    while True:
        shortest = min(length)
        kernel = [3 if k == 3 or side < 2 * shortest else 1 for k, side in zip(kernel, length, strict=True)]
        kernels.append(tuple(kernel))
        large = [axis for axis in axes if size[axis] >= 2 * _FEWEST_VOXELS]
        if not large:
            break
        finest = min(length[axis] for axis in large)
        halved = [axis for axis in large if length[axis] < 2 * finest]
        if len(halved) == 1 and size[halved[0]] < 3 * _FEWEST_VOXELS:
            break
        strides.append(tuple(2 if axis in halved else 1 for axis in axes))
        for axis in halved:
            size[axis], length[axis] = ceil(size[axis] / 2), 2 * length[axis]
    if len(strides) < 2:
        raise ConfigError(
            f"The images have {'x'.join(map(str, patch))} voxels, expected at least {2 * _FEWEST_VOXELS} "
            "along an axis.",
            "Write a configuration by hand for such small images, or join them.",
        )
    return Topology(tuple(strides), tuple(kernels))


def describe(config: TrainConfig, found: Fingerprint) -> list[str]:
    """Return the plan in lines for a reader."""
    model, network = config.model, config.model.network
    unit = f" {found.unit}" if found.unit else " pixels"
    low, high = found.shapes.min(axis=0), found.shapes.max(axis=0)

    def size(values: Sequence[float]) -> str:
        return " x ".join(f"{value:g}" for value in values)

    lines = [
        f"Images: {found.images} to train on, {found.dimension}D, {found.channels} channels, "
        f"{size(low.tolist())} to {size(high.tolist())} voxels",
        f"Task: {model.task}; labels {', '.join(label.name for label in model.labels)}",
        f"Voxel size: {size(model.spacing) + unit if model.spacing else 'not known, taken as it is'}",
        f"Volumes turned to: {model.orientation or 'not turned'}" if found.dimension == 3 else "",
        f"Normalisation: {', '.join(entry.scheme for entry in model.normalisation)}",
        f"Network: {network.variant}{' without ViL layers' if network.mixer == 'none' else ''}, "
        f"features {', '.join(map(str, network.features))}",
        f"Strides: {'; '.join(size(stride) for stride in network.strides)}",
        f"Kernels: {'; '.join(size(kernel) for kernel in network.kernels)}",
        f"Patch: {size(model.patch_size)}, {config.sampling.batch} a step; "
        f"{config.sampling.foreground:.0%} around labelled voxels",
        f"Regions: {', '.join(region.name for region in model.regions)}" if model.regions else "",
    ]
    return [line for line in lines if line]


def _median_shape(found: Fingerprint, spacing: tuple[float, ...] | None) -> Size:
    shapes = found.shapes.astype(np.float64)
    if spacing is not None and found.spacings is not None:
        shapes = shapes * found.spacings / np.array(spacing)
    return tuple(max(1, round(n)) for n in np.median(shapes, axis=0).tolist())


def _divisible(patch: Size, topology: Topology) -> Size:
    return tuple(-(-n // step) * step for n, step in zip(patch, topology.divisor(), strict=True))


def _features(topology: Topology, wishes: Wishes, dimension: int) -> list[int]:
    return [min(wishes.width * 2**level, _LARGEST_WIDTH[dimension]) for level in range(len(topology.strides))]


def _values(patch: Size, topology: Topology, wishes: Wishes) -> float:
    """Values of the feature maps of a smallest batch: two convolutions a block, encoder and decoder."""
    size, total = patch, 0.0
    for level, (stride, width) in enumerate(
        zip(topology.strides, _features(topology, wishes, len(patch)), strict=True)
    ):
        size = tuple(n // step for n, step in zip(size, stride, strict=True))
        blocks = _encoder_blocks(level, len(topology.strides)) + (level < len(topology.strides) - 1)
        total += 2 * blocks * width * prod(size)
    return total * (_LEAST_BATCH[3] if len(patch) == 3 else 1)


def _encoder_blocks(level: int, levels: int) -> int:
    """Two blocks in the finer half, one in the coarser, as released."""
    return 2 if level < ceil(levels / 2) else 1


def _network(topology: Topology, wishes: Wishes, dimension: int) -> dict[str, Any]:
    levels = len(topology.strides)
    return {
        "variant": wishes.network,
        "mixer": wishes.mixer,
        "features": _features(topology, wishes, dimension),
        "kernels": topology.kernels,
        "strides": topology.strides,
        "encoder_blocks": [_encoder_blocks(level, levels) for level in range(levels)],
        "decoder_blocks": [1] * (levels - 1),
        "direction": _direction(wishes.network),
    }


def _batch(found: Fingerprint, median: Size, patch: Size, topology: Topology, wishes: Wishes) -> int:
    """Patches of a step: as many as fit, but not more than a small share of the data set."""
    least = _LEAST_BATCH[found.dimension]
    single = _values(patch, topology, wishes) / (least if found.dimension == 3 else 1)
    fitting = int(_VALUES[found.dimension] * wishes.memory / 8 * (1 if least == 2 else 12) / single)
    share = int(_LARGEST_SHARE * found.images * prod(median) / prod(patch))
    return max(2, min(max(fitting, 2), max(share, 2)))


def _normalisation(found: Fingerprint, description: Description | None, task: str) -> list[dict[str, Any]]:
    if description is None:
        scheme = "percentile" if task == "instances" or found.dimension == 2 else "zscore"
        return [{"scheme": scheme}] * (1 if scheme == "percentile" else found.channels)
    entries: list[dict[str, Any]] = []
    for scheme, values in zip(description.schemes(), found.intensities, strict=True):
        entry: dict[str, Any] = {"scheme": scheme}
        if scheme == "ct":
            spread = {"mean": values.mean, "std": max(values.std, 1e-6)}
            entry |= spread | {"low": values.low, "high": values.high}
        entries.append(entry)
    return entries


def _labels(found: Fingerprint, description: Description | None, task: str) -> dict[str, Any]:
    if task == "instances":
        return {"labels": labels_called({1: "object"})}
    if description is None:
        return {"labels": labels_called({found.largest_label: f"label {found.largest_label}"})}
    return {"labels": description.labels, "regions": description.regions}


def _geometry(patch: Size, dimension: int, task: str) -> dict[str, Any]:
    """Rotations in the plane alone where voxels or patches are flat, as far as the patch's shape allows."""
    common = {"scale": (0.5, 2.0) if task == "instances" else (0.7, 1.4)}
    if dimension == 2:
        return common | {"rotation_degrees": 180.0 if max(patch) < 1.5 * min(patch) else 15.0}
    if max(patch) > _FLAT_PATCH * patch[0]:
        return common | {"rotation_degrees": 180.0, "elastic_probability": 0.0}
    return common | {"rotation_degrees": 30.0, "tilt_degrees": 30.0, "elastic_pixels": 2.0}


def with_network(config: TrainConfig, variant: Variant | None, mixer: Mixer | None) -> TrainConfig:
    """Return a configuration with another variant or mixer of its network; None leaves what it says."""
    network = config.model.network
    changed = network.model_copy(
        update={
            "variant": variant or network.variant,
            "mixer": mixer or network.mixer,
            "direction": _direction(variant) if variant else network.direction,
        }
    )
    return config.model_copy(update={"model": config.model.model_copy(update={"network": changed})})


def _direction(variant: Variant) -> str:
    return "paired" if variant == "dense" else "forward"
