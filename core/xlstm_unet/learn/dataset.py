"""Data sets of images with labels: read from a folder, checked, and kept in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import DatasetError, ImageError
from xlstm_unet.images import Image, read_image, read_labels
from xlstm_unet.learn.described import IGNORED, Description, read_description
from xlstm_unet.learn.layouts import SPLITS, Row, list_rows
from xlstm_unet.learn.sources import Source
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled

MAX_BYTES = 8 << 30
"""Most bytes of decoded images and labels kept in memory."""
_SAME_GRID = 1e-3
"""Difference of affines, in mm or pixels, that rounding explains."""


@dataclass(frozen=True)
class Sample:
    """One image with its labels.

    Parameters
    ----------
    id
        Name, the stem of its files.
    split
        "train", "val" or "test".
    group
        What must not be torn apart by a split: a patient, an animal, a mosaic.
    modality
        Kind of image; sampling is balanced over it.
    image
        The image as read.
    labels
        int32, on the spatial axes of the image; 0 is background, -1 what carries no truth.
    """

    id: str
    split: str
    group: str
    modality: str
    image: Image
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Dataset:
    """Samples in memory, with what was decided while reading them (``notes``).

    ``description`` is what ``dataset.json`` says, where the data set has one.
    """

    name: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    description: Description | None = None

    def split(self, name: str) -> tuple[Sample, ...]:
        """Samples of one split, in order of id."""
        return tuple(sample for sample in self.samples if sample.split == name)

    def fingerprint(self) -> str:
        """Digest of ids, splits, images and labels: equal data, equal digest."""
        digest = hashlib.sha256()
        for sample in self.samples:
            digest.update(f"{sample.id}\0{sample.split}\0{sample.image.axes}\0".encode())
            digest.update(np.ascontiguousarray(sample.image.array).data)
            digest.update(np.ascontiguousarray(sample.labels).data)
        return digest.hexdigest()


def open_dataset(
    folder: Path | str,
    *,
    splits: Collection[str] = SPLITS,
    channels: Sequence[str] = (),
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> Dataset:
    """Read a data set: every image and its labels, decoded once.

    Four layouts are known: ``index.csv`` (columns ``id``, ``split``; ``group`` and ``modality`` if there
    are) with ``<split>.zip`` archives; folders ``train/``, ``val/``, ``test/`` that each hold ``images/``
    and ``labels/``; ``images/`` and ``labels/`` alone; and nnU-Net's raw layout (``dataset.json``,
    ``imagesTr/``, ``labelsTr/``). The labels of ``<id>`` are called ``<id>`` or ``<id>_labels``; its image
    ``<id>``, or one file a channel, ``<id>_0000`` and so on or ``<id>_<channel>``. Where there is no
    validation split, groups are drawn from the training split for it, the same ones every time, and a note
    says so.

    Parameters
    ----------
    folder
        Folder of the data set.
    splits
        Which splits to decode ("train", "val", "test").
    channels
        Names of the channels wanted, where an image has a file for each.
    on_progress, cancel
        Called for every sample.

    Raises
    ------
    DatasetError
        For a missing, unreadable or mismatched file, or more than `MAX_BYTES` of decoded data.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder.", "Give the folder that holds images/ and labels/.")
    description = read_description(folder)
    rows, notes = list_rows(folder, raw=description is not None)
    rows = [row for row in rows if row.split in splits]
    sources = {place: Source(*place) for place in {(row.where, row.parts) for row in rows}}
    samples: list[Sample] = []
    held = 0
    for done, row in enumerate(rows):
        check_cancelled(cancel)
        sample = _read(row, sources[row.where, row.parts], channels, description)
        held += sample.image.array.nbytes + sample.labels.nbytes
        if held > MAX_BYTES:
            raise DatasetError(
                f"{folder} decodes to more than {MAX_BYTES >> 30} GiB.", "Train on fewer or smaller images."
            )
        samples.append(sample)
        if on_progress is not None:
            on_progress(Progress("reading", done + 1, len(rows)))
    return Dataset(folder.name, tuple(samples), notes, description)


def _read(row: Row, source: Source, channels: Sequence[str], description: Description | None) -> Sample:
    named = description.channels if description is not None else channels
    try:
        image = _read_image(row.id, source, source.images(row.id, named))
        with source.path(source.labels(row.id)) as path:
            labels = np.asarray(read_labels(path), dtype=np.int32)
    except ImageError as error:
        raise DatasetError(f"{row.where}: sample {row.id!r}: {error.message}", error.hint) from error
    if labels.shape != image.spatial_shape:
        raise DatasetError(
            f"{row.where}: sample {row.id!r}: labels are {_size(labels.shape)} and the image is "
            f"{_size(image.spatial_shape)}.",
            "Labels must lie on the pixels of their image.",
        )
    if description is not None:
        _check_described(row, image, labels, description)
        if description.ignored is not None:
            labels[labels == description.ignored] = IGNORED
    if row.spacing_um is not None:
        image = replace(image, spacing=(row.spacing_um,) * len(image.spatial_axes), unit="µm")
    return Sample(row.id, row.split, row.group, row.modality, image, labels)


def _read_image(name: str, source: Source, files: list[str]) -> Image:
    """Read an image from one file, or stack its channels from several on one grid."""
    parts = []
    for file in files:
        with source.path(file) as path:
            parts.append(read_image(path))
    first = parts[0]
    if len(parts) == 1:
        return first
    for part, file in zip(parts, files, strict=True):
        if part.channels > 1 or part.axes != first.axes:
            raise ImageError(f"{file} has axes {part.axes}, expected one channel of axes {first.axes}.")
        if part.array.shape != first.array.shape or not _same_place(part, first):
            raise ImageError(
                f"{file} lies on another grid than {files[0]}: {_size(part.spatial_shape)} voxels of "
                f"{part.spacing} {part.unit} against {_size(first.spatial_shape)} of {first.spacing}.",
                "Resample the channels to one grid first.",
            )
    array = np.stack([part.array.reshape(part.label_shape) for part in parts])
    return replace(first, array=array, axes="C" + first.label_axes, name=name, header=None)


def _same_place(one: Image, other: Image) -> bool:
    if one.affine is None or other.affine is None:
        return one.affine is None and other.affine is None and one.spacing == other.spacing
    return bool(np.allclose(one.affine, other.affine, atol=_SAME_GRID))


def _check_described(row: Row, image: Image, labels: NDArray[np.int32], description: Description) -> None:
    largest = description.ignored or len(description.labels)
    if (found := int(labels.max())) > largest:
        raise DatasetError(
            f"{row.where}: sample {row.id!r} has label {found}, dataset.json names 0 to {largest}.",
            "Add the label to dataset.json or correct the file.",
        )
    if image.channels != len(description.channels):
        raise DatasetError(
            f"{row.where}: sample {row.id!r} has {image.channels} channels, dataset.json names "
            f"{len(description.channels)} ({', '.join(description.channels)}).",
            "Add the missing files or correct channel_names.",
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
