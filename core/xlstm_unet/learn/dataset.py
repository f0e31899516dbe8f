"""Data sets of images with labels: read from a folder, checked, and kept in memory."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import DatasetError, ImageError
from xlstm_unet.images import Image, read_image, read_labels
from xlstm_unet.learn.sources import Source
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled

SPLITS = ("train", "val", "test")
MAX_BYTES = 8 << 30
"""Most bytes of decoded images and labels kept in memory."""
VALIDATION_FRACTION = 0.15
"""Share of the groups taken for validation where a data set names none."""
_GROUP_COLUMNS = ("group", "subject_group", "subject")


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
        int32, on the spatial axes of the image; 0 is background.
    """

    id: str
    split: str
    group: str
    modality: str
    image: Image
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Dataset:
    """Samples in memory, with what was decided while reading them (``notes``)."""

    name: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()

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


@dataclass(frozen=True)
class _Row:
    id: str
    split: str
    group: str
    modality: str
    spacing_um: float | None
    where: Path


def open_dataset(
    folder: Path | str,
    *,
    splits: Collection[str] = SPLITS,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> Dataset:
    """Read a data set: every image and its labels, decoded once.

    Three layouts are known: ``index.csv`` (columns ``id``, ``split``; ``group`` and ``modality`` if there
    are) with ``<split>.zip`` archives; folders ``train/``, ``val/``, ``test/`` that each hold ``images/``
    and ``labels/``; or ``images/`` and ``labels/`` alone. The labels of ``<stem>`` are called ``<stem>`` or
    ``<stem>_labels``. Where there is no validation split, groups are drawn from the training split for it,
    the same ones every time, and a note says so.

    Parameters
    ----------
    folder
        Folder of the data set.
    splits
        Which splits to decode ("train", "val", "test").
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
    rows, notes = _with_validation(
        _index_rows(folder) if (folder / "index.csv").exists() else _folder_rows(folder)
    )
    rows = [row for row in rows if row.split in splits]
    sources = {where: Source(where) for where in {row.where for row in rows}}
    samples: list[Sample] = []
    held = 0
    for done, row in enumerate(rows):
        check_cancelled(cancel)
        sample = _read(row, sources[row.where])
        held += sample.image.array.nbytes + sample.labels.nbytes
        if held > MAX_BYTES:
            raise DatasetError(
                f"{folder} decodes to more than {MAX_BYTES >> 30} GiB.", "Train on fewer or smaller images."
            )
        samples.append(sample)
        if on_progress is not None:
            on_progress(Progress("reading", done + 1, len(rows)))
    return Dataset(folder.name, tuple(samples), notes)


def _index_rows(folder: Path) -> list[_Row]:
    path = folder / "index.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error
    if not table:
        raise DatasetError(f"{path} has no rows.")
    for column in ("id", "split"):
        if column not in table[0]:
            raise DatasetError(f"{path} has no column {column!r}; it has {', '.join(table[0])}.")
    rows = []
    for line, record in enumerate(table, start=2):
        split = record["split"]
        if split not in SPLITS:
            raise DatasetError(
                f"{path}, line {line}: split is {split!r}, expected one of {', '.join(SPLITS)}."
            )
        packed = folder / f"{split}.zip"
        group = next((record[column] for column in _GROUP_COLUMNS if record.get(column)), record["id"])
        rows.append(
            _Row(
                id=record["id"],
                split=split,
                group=group,
                modality=record.get("modality") or "",
                spacing_um=_number(record.get("pixel_size_um"), f"{path}, line {line}: pixel_size_um"),
                where=packed if packed.exists() else folder / split,
            )
        )
    return rows


def _number(text: str | None, what: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text)
    except ValueError as error:
        raise DatasetError(f"{what} is {text!r}, expected a number.") from error
    if not 0 < value < float("inf"):
        raise DatasetError(f"{what} is {text!r}, expected a positive number.")
    return value


def _folder_rows(folder: Path) -> list[_Row]:
    named = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    rows = []
    for split, where in (named or {"train": folder}).items():
        rows += [_Row(stem, split, stem, "", None, where) for stem in Source(where).stems()]
    return rows


def _with_validation(rows: list[_Row]) -> tuple[list[_Row], tuple[str, ...]]:
    """Draw a validation split by group where there is none."""
    if not any(row.split == "train" for row in rows):
        raise DatasetError(
            "The data set has no training samples.", "Put them in train/ or call their split 'train'."
        )
    if any(row.split == "val" for row in rows):
        return rows, ()
    groups = sorted(
        {row.group for row in rows if row.split == "train"},
        key=lambda group: hashlib.sha256(group.encode()).digest(),
    )
    if len(groups) < 2:
        raise DatasetError(
            f"The data set has no validation split and only {len(groups)} group of training samples.",
            "Training needs at least two images, so that one can be kept for validation.",
        )
    chosen = set(groups[: max(1, round(VALIDATION_FRACTION * len(groups)))])
    split_rows = [
        replace(row, split="val") if row.split == "train" and row.group in chosen else row for row in rows
    ]
    count = sum(row.split == "val" for row in split_rows)
    return split_rows, (
        f"No validation split was given: {count} training samples ({len(chosen)} of {len(groups)} groups) "
        "are kept for validation.",
    )


def _read(row: _Row, source: Source) -> Sample:
    try:
        with source.path(source.image(row.id)) as path:
            image = read_image(path)
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
    if labels.min() < 0:
        raise DatasetError(f"{row.where}: sample {row.id!r}: labels have negative values.")
    if row.spacing_um is not None:
        image = replace(image, spacing=(row.spacing_um,) * len(image.spatial_axes), unit="µm")
    return Sample(row.id, row.split, row.group, row.modality, image, labels)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
