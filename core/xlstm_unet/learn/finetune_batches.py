"""Batches for fine-tuning: crops of what was corrected, and of the replay pack beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from xlstm_unet.learn.augment import draw_warps
from xlstm_unet.learn.bank import Bank, Prepared, send
from xlstm_unet.learn.config import Geometry, Intensity, Sampling, TrainConfig
from xlstm_unet.learn.corrections_prepare import Piece
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.learn.intensity import change_intensity
from xlstm_unet.learn.losses import Targets, instance_classes
from xlstm_unet.learn.replay import ReplayPatch
from xlstm_unet.learn.supervision import Supervision
from xlstm_unet.learn.targets import instance_targets, object_diameters
from xlstm_unet.spec import ModelSpec

_KNOWN, _DISTANCE, _BITS = 1, 2, 4
"""A bank's labels are ``number * _BITS``, plus these where class and distance are known."""
_ANCHORS = 64
"""Most places of one kind that crops of a piece are put around."""


@dataclass(frozen=True)
class Crops:
    """Crops on the device: ``image`` (B, C, *size) float32, and what they should give."""

    image: Tensor
    targets: Targets


@dataclass(frozen=True)
class Batch:
    """What one step learns from."""

    corrections: Crops
    replay: Crops | None


class BatchMaker:
    """Draws batches; all random numbers come from one generator on the CPU.

    Parameters
    ----------
    pieces, supervisions
        What was corrected, and what is known there.
    replay
        Patches to rehearse; may be empty.
    spec
        The model.
    options
        Number of crops and shares.
    size
        Size of a crop.
    device
        Where the banks lie.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        supervisions: Sequence[Supervision],
        replay: Sequence[ReplayPatch],
        spec: ModelSpec,
        options: FineTuneOptions,
        size: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self.options = options
        self.spec = spec
        self.config = _config(spec)
        self.generator = torch.Generator().manual_seed(options.seed)
        self._noise = torch.Generator(device)
        self.size = size
        items = [_from_piece(p, s, spec) for p, s in zip(pieces, supervisions, strict=True)]
        self._corrections = Bank.of(items, spec.input_channels, device)
        self._weights = torch.tensor([float(len(item.anchors)) for item in items])
        self._rehearsed = min(options.replay_batch or (2 if spec.dimension == 2 else 1), options.batch)
        self._replay = None
        if replay and options.replay_share > 0:
            self._replay = Bank.of(
                [_from_patch(patch, spec) for patch in replay], spec.input_channels, device
            )

    def draw(self) -> Batch:
        """Draw the crops of one step."""
        corrections = self._crops(self._corrections, self.options.batch, self._weights)
        if self._replay is None:
            return Batch(corrections, None)
        weights = torch.ones(len(self._replay))
        return Batch(corrections, self._crops(self._replay, self._rehearsed, weights))

    def _crops(self, bank: Bank, count: int, weights: Tensor) -> Crops:
        generator = self.generator
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        self._noise.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        warps = draw_warps(bank, chosen, self.size, self.config, generator)
        crops = bank.take(send(chosen, bank.device), warps.coordinates(self.size, bank.device))
        image = change_intensity(
            crops.image, bank.gray[chosen], self.config.intensity, generator, self._noise
        )
        codes = crops.labels
        labels, whole = codes // _BITS, (codes & _DISTANCE) > 0
        known = ((codes & _KNOWN) > 0).float()
        if crops.distance is None:
            return Crops(image, Targets(labels, None, known, whole))
        return Crops(image, Targets(instance_classes(labels), crops.distance * (labels > 0), known, whole))


def crop_size(spec: ModelSpec, options: FineTuneOptions) -> tuple[int, ...]:
    """Size of the crops, in whole strides: as the options say, or by the model's patch.

    Half of it in pictures, which gives more steps of as much use in the same time; three quarters in volumes.
    """
    stride = [int(n) for n in np.prod(np.array(spec.network.strides), axis=0)]
    if spec.network.channel_tokens:
        return spec.patch_size
    share = 0.5 if spec.dimension == 2 else 0.75
    wanted = [options.crop or share * n for n in spec.patch_size]
    return tuple(max(s, round(n / s) * s) for n, s in zip(wanted, stride, strict=True))


def _geometry(spec: ModelSpec) -> Geometry:
    """Turn pictures as one likes; volumes only slightly and mirror them only along the model's axes.

    Front and back of a body are not the same, and a label such as "anterior" says which is which.
    """
    if spec.dimension == 2 and spec.mirror_axes is None:
        return Geometry(probability=0.6, scale=(0.75, 1.33), elastic_probability=0.15, elastic_pixels=4.0)
    axes = range(spec.dimension)
    mirrored = axes if spec.mirror_axes is None else spec.mirror_axes
    return Geometry(
        probability=0.6,
        scale=(0.85, 1.18),
        rotation_degrees=12.0,
        tilt_degrees=8.0 if spec.dimension == 3 else 0.0,
        flips=tuple(axis in mirrored for axis in axes),
        elastic_probability=0.15,
        elastic_pixels=1.5,
    )


def _config(spec: ModelSpec) -> TrainConfig:
    """Augmentation of fine-tuning: as in training, but nearer to the image as it is."""
    return TrainConfig(
        model=spec,
        sampling=Sampling(foreground=1.0, empty=0.0),
        geometry=_geometry(spec),
        intensity=Intensity(
            invert=0.0,
            gray=0.05,
            colour=0.4,
            tint=0.0,
            gamma=0.4,
            contrast=0.4,
            shading=0.15,
            blur=0.1,
            coarse=0.0,
            noise=0.2,
            strength=0.5,
        ),
    )


def _from_piece(piece: Piece, supervision: Supervision, spec: ModelSpec) -> Prepared:
    codes = supervision.labels * _BITS
    codes += supervision.known * _KNOWN + supervision.distance_known * _DISTANCE
    sizes = object_diameters(supervision.labels * supervision.distance_known)
    if spec.task == "classes" or not sizes.size:
        diameter = spec.object_diameter or float("nan")
    else:
        diameter = float(np.median(sizes))
    return Prepared(
        piece.image, codes.astype(np.int32), supervision.distance, _anchors(piece, supervision), diameter
    )


def _from_patch(patch: ReplayPatch, spec: ModelSpec) -> Prepared:
    labels = patch.labels.astype(np.int32)
    image = patch.intensities(spec.input_channels)
    anchors = torch.from_numpy(np.argwhere(labels > 0)[::97].astype(np.float32))
    codes = labels * _BITS + (_KNOWN | _DISTANCE)
    if spec.task == "classes":
        return Prepared(image, codes, None, anchors, float("nan"))
    sizes = object_diameters(labels)
    diameter = float(np.median(sizes)) if sizes.size else float("nan")
    return Prepared(image, codes, instance_targets(labels)[1], anchors, diameter)


def _anchors(piece: Piece, supervision: Supervision) -> Tensor:
    """Return one place in every changed object and removed blob, and places spread over accepted regions."""
    known = supervision.known
    changed = piece.changed & known
    accepted = piece.accepted & known & ~piece.changed
    single = supervision.labels * changed if supervision.distance is not None else ndimage.label(changed)[0]
    places = [
        *_middles(single),
        *_middles(ndimage.label(piece.removed & known)[0]),
        *np.argwhere(accepted)[:: max(1, np.count_nonzero(accepted) // _ANCHORS)],
    ]
    if not places:
        places = [*np.argwhere(known)[:1]]
    return torch.from_numpy(np.array(places, np.float32).reshape(-1, known.ndim))


def _middles(labels: NDArray[np.integer]) -> list[NDArray[np.float64]]:
    """Middle of the bounding box of every object."""
    middles = []
    for box in ndimage.find_objects(labels):
        if box is not None:
            middles.append(np.array([(where.start + where.stop - 1) / 2 for where in box]))
    return middles
