"""How the samples of a data set lie in its folder: which there are, their splits and their files."""

from __future__ import annotations

import csv
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from xlstm_unet.errors import DatasetError
from xlstm_unet.learn.sources import PARTS, Source

SPLITS = ("train", "val", "test")
VALIDATION_FRACTION = 0.15
"""Share of the groups taken for validation where a data set names none."""
RAW_PARTS = {"train": ("imagesTr", "labelsTr"), "test": ("imagesTs", "labelsTs")}
"""Folders of nnU-Net's raw layout; the test images are used only where they have labels."""
_GROUP_COLUMNS = ("group", "subject_group", "subject")


@dataclass(frozen=True)
class Row:
    """One sample, not read yet.

    Parameters
    ----------
    id, split, group, modality
        As in `Sample`.
    spacing_um
        Pixel size in µm, where the index says it.
    where
        Folder or archive of its split.
    parts
        Names of the folders of images and of labels.
    """

    id: str
    split: str
    group: str
    modality: str
    spacing_um: float | None
    where: Path
    parts: tuple[str, str] = PARTS


def list_rows(folder: Path, *, raw: bool) -> tuple[list[Row], tuple[str, ...]]:
    """List the samples of a data set, with notes on what was decided.

    Parameters
    ----------
    folder
        Folder of the data set.
    raw
        Whether it is in nnU-Net's raw layout.

    Raises
    ------
    DatasetError
        If the index is wrong, or there is nothing to train on.
    """
    if (folder / "index.csv").exists():
        rows = _index_rows(folder)
    else:
        rows = _raw_rows(folder) if raw else _folder_rows(folder)
    return _with_validation(rows)


def _index_rows(folder: Path) -> list[Row]:
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
            Row(
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


def _folder_rows(folder: Path) -> list[Row]:
    named = {split: folder / split for split in SPLITS if (folder / split).is_dir()}
    rows = []
    for split, where in (named or {"train": folder}).items():
        rows += [Row(stem, split, stem, "", None, where) for stem in Source(where).ids()]
    return rows


def _raw_rows(folder: Path) -> list[Row]:
    rows = []
    for split, parts in RAW_PARTS.items():
        if split == "test" and not (folder / parts[1]).is_dir():
            continue
        rows += [Row(stem, split, stem, "", None, folder, parts) for stem in Source(folder, parts).ids()]
    return rows


def _with_validation(rows: list[Row]) -> tuple[list[Row], tuple[str, ...]]:
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
