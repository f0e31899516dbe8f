"""Domains of the study of corrections: which images, and how they are shifted."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from xlstm_unet.errors import DatasetError
from xlstm_unet.learn import Sample, open_dataset
from xlstm_unet.progress import Cancel, OnProgress
from xlstm_unet.study.changes import Array, rescaled, stored_as
from xlstm_unet.study.finetune_config import Images, Protocol, Shift

_GRID = 4
"""Control points of a bias field along an axis."""


@dataclass(frozen=True)
class Domain:
    """Images of a protocol, shifted.

    Parameters
    ----------
    pool
        To be corrected.
    target
        To be scored; none of them, nor of their groups, is in ``pool``.
    source
        Of the root's own domain; empty where the protocol names none.
    """

    pool: tuple[Sample, ...]
    target: tuple[Sample, ...]
    source: tuple[Sample, ...]


def make_domain(
    protocol: Protocol, data: Path, *, on_progress: OnProgress | None = None, cancel: Cancel | None = None
) -> Domain:
    """Read and shift the images of a protocol.

    Parameters
    ----------
    protocol
        Says which.
    data
        Folder that holds the data sets.
    on_progress, cancel
        Called for every image.

    Raises
    ------
    DatasetError
        If a data set cannot be read, or there are not enough images.
    """
    target = _some(protocol.target, data, (), on_progress, cancel)
    groups = {sample.group for sample in target}
    taken = groups if protocol.pool.dataset == protocol.target.dataset else set()
    pool = _some(protocol.pool, data, taken, on_progress, cancel)
    needed = max(protocol.images_corrected, protocol.dense_images if "dense" in protocol.arms else 0)
    if len(pool) < needed:
        raise DatasetError(
            f"{protocol.name}: {len(pool)} images to correct, {needed} are needed.",
            "Choose another split or more modalities, or fewer images in the rounds.",
        )
    return Domain(
        pool=tuple(shifted(sample, protocol.shift) for sample in pool),
        target=tuple(shifted(sample, protocol.shift) for sample in target),
        source=() if protocol.source is None else _some(protocol.source, data, (), on_progress, cancel),
    )


def shifted(sample: Sample, shift: Shift) -> Sample:
    """Return a sample as another instrument would have taken it; the same one every time."""
    generator = np.random.default_rng(zlib.crc32(sample.id.encode()))
    if shift.scale != 1:
        sample = rescaled(sample, shift.scale)
    if shift.thickness > 1:
        sample = _thick(sample, shift.thickness)
    dtype = sample.image.array.dtype
    values = sample.image.array.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if high > low:
        values = low + (high - low) * ((values - low) / (high - low)) ** shift.gamma
    if shift.bias:
        field = _smooth_field(sample.labels.shape, generator)
        values = low + (values - low) * np.exp(shift.bias * field)
    if shift.noise:
        bottom, top = np.percentile(values, (1.0, 99.8))
        values = values + generator.normal(0.0, shift.noise * (top - bottom), values.shape)
    return replace(sample, image=replace(sample.image, array=stored_as(values, dtype)))


def _thick(sample: Sample, count: int) -> Sample:
    """Average ``count`` neighbouring slices into one; the truth is that of the middle one."""
    slices = len(sample.labels) // count
    axis = sample.image.array.ndim - sample.labels.ndim
    kept = np.take(sample.image.array, np.arange(slices * count), axis=axis).astype(np.float64)
    shape = (*kept.shape[:axis], slices, count, *kept.shape[axis + 1 :])
    image = stored_as(kept.reshape(shape).mean(axis=axis + 1), sample.image.array.dtype)
    labels = np.ascontiguousarray(sample.labels[count // 2 : slices * count : count])
    spacing = sample.image.spacing
    thicker = None if spacing is None else (spacing[0] * count, *spacing[1:])
    return replace(
        sample, image=replace(sample.image, array=image, spacing=thicker, affine=None), labels=labels
    )


def _smooth_field(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Smooth field between about -1 and 1."""
    from scipy import ndimage

    control = generator.uniform(-1, 1, (_GRID,) * len(shape))
    factors = [n / _GRID for n in shape]
    field = ndimage.zoom(control, factors, order=3, mode="nearest", grid_mode=True)
    return np.asarray(field)


def _some(
    images: Images,
    data: Path,
    groups: Collection[str],
    on_progress: OnProgress | None,
    cancel: Cancel | None,
) -> tuple[Sample, ...]:
    """Samples that a protocol names, without those of some groups, evenly spread over the split."""
    dataset = open_dataset(
        data / images.dataset, splits=(images.split,), on_progress=on_progress, cancel=cancel
    )
    found = [
        sample
        for sample in dataset.split(images.split)
        if (not images.modalities or sample.modality in images.modalities) and sample.group not in groups
    ]
    if not found:
        raise DatasetError(
            f"{images.dataset} has no samples in split {images.split!r} of the modalities "
            f"{', '.join(images.modalities) or '(any)'}.",
            "Change the protocol.",
        )
    most = images.max_images or len(found)
    if len(found) > most:
        found = [found[i] for i in np.linspace(0, len(found) - 1, most).round().astype(int)]
    return tuple(found)
