"""What a data set is like: sizes, voxel sizes, channels, labels and the intensities inside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import oriented
from xlstm_unet.learn.dataset import Dataset, Sample

ORIENTATION = "SAR"
"""How volumes are turned where all of them say where they lie."""
_VALUES = 10_000
"""Foreground intensities kept of each image and channel."""
_FEW_CLASSES = 20
_TOUCHING = 0.9
"""Share of label values that are one connected piece, from which they are objects rather than classes."""


@dataclass(frozen=True)
class Intensities:
    """Intensities of one channel inside the labels of all images."""

    mean: float
    std: float
    low: float
    """Percentile 0.5."""
    high: float
    """Percentile 99.5."""


@dataclass(frozen=True)
class Fingerprint:
    """Facts of the training images that a plan is made from.

    Parameters
    ----------
    images
        Number of training images.
    dimension
        2 or 3.
    channels
        Of every image; 3 where some are gray and the others RGB (``mixed``).
    shapes
        Voxels along each axis, one row an image.
    spacings
        Voxel sizes in ``unit``; None where not every image says it.
    unit
        "mm" or "µm"; None without spacings.
    orientation
        How volumes are to be turned; None where not all say where they lie.
    task
        "instances" where the label numbers are single objects, else "classes".
    largest_label
        Highest label.
    intensities
        One entry a channel.
    """

    images: int
    dimension: Literal[2, 3]
    channels: int
    shapes: NDArray[np.int64]
    spacings: NDArray[np.float64] | None
    unit: Literal["mm", "µm"] | None
    orientation: str | None
    task: Literal["instances", "classes"]
    largest_label: int
    intensities: tuple[Intensities, ...]
    mixed: bool = False


def fingerprint(dataset: Dataset) -> Fingerprint:
    """Look at the training images of a data set.

    Raises
    ------
    DatasetError
        If they differ in dimension or channels, or carry no label at all.
    """
    samples = dataset.split("train")
    if not samples:
        raise DatasetError(f"{dataset.name} has no training samples.")
    first = samples[0]
    counts = {sample.image.channels for sample in samples}
    mixed = counts == {1, 3}
    for sample in samples:
        same = mixed or sample.image.channels == first.image.channels
        if not same or sample.image.spatial_axes != first.image.spatial_axes or "T" in sample.image.axes:
            raise DatasetError(
                f"Sample {sample.id!r} has axes {sample.image.axes} and {sample.image.channels} channels, "
                f"{first.id!r} {first.image.axes} and {first.image.channels}.",
                "All images of a data set need the same axes and channels.",
            )
    largest = max(int(sample.labels.max()) for sample in samples)
    if largest < 1:
        raise DatasetError(f"{dataset.name}: the labels of all training samples are empty.")
    dimension: Literal[2, 3] = 3 if len(first.image.spatial_axes) == 3 else 2
    placed = dimension == 3 and all(sample.image.affine is not None for sample in samples)
    orientation = ORIENTATION if placed else None
    images = [oriented(sample.image, orientation)[0] for sample in samples]
    spacings = [image.spacing for image in images]
    units = {image.unit for image in images}
    unit = units.pop() if len(units) == 1 and None not in spacings else "pixel"
    described = dataset.description is not None
    return Fingerprint(
        images=len(samples),
        dimension=dimension,
        channels=max(counts),
        shapes=np.array([image.spatial_shape for image in images]),
        spacings=None if unit == "pixel" else np.array(spacings, dtype=np.float64),
        unit=None if unit == "pixel" else unit,
        orientation=orientation,
        task="classes" if described or not _objects(samples, largest) else "instances",
        largest_label=largest,
        intensities=tuple(_intensities(samples, channel) for channel in range(max(counts))),
        mixed=mixed,
    )


def _objects(samples: Sequence[Sample], largest: int) -> bool:
    """Whether label values are single objects: many of them, nearly each one connected piece."""
    if largest <= _FEW_CLASSES:
        return False
    whole = total = 0
    for sample in samples[:: max(1, len(samples) // 10)]:
        values = np.unique(sample.labels[sample.labels > 0])[:100]
        boxes = ndimage.find_objects(np.maximum(sample.labels, 0))
        for value in values:
            box = boxes[value - 1]
            mask = sample.labels[box] == value
            whole += ndimage.label(mask, np.ones((3,) * mask.ndim))[1] == 1
            total += 1
    return whole >= _TOUCHING * total


def _intensities(samples: Sequence[Sample], channel: int) -> Intensities:
    """Spread of one channel inside the labels, from a regular subset of the voxels of each image."""
    parts = []
    for sample in samples:
        array = sample.image.array.reshape(-1, *sample.labels.shape)
        array = array[min(channel, len(array) - 1)]
        inside = array[sample.labels > 0]
        parts.append(inside[:: max(1, inside.size // _VALUES)].astype(np.float64))
    values = np.concatenate(parts)
    low, high = np.percentile(values, (0.5, 99.5))
    return Intensities(float(values.mean()), float(values.std()), float(low), float(high))
