"""Which file belongs to which: images, predictions and truth paired by their stems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import image_stem, image_suffix, list_images

_ENDING = "_labels"


@dataclass(frozen=True)
class Pair:
    """What is scored and its truth.

    Parameters
    ----------
    name
        Common stem.
    source
        Image or prediction file.
    truth
        File with the true labels.
    """

    name: str
    source: Path
    truth: Path


def pair_images(images: Path, labels: Path) -> list[Pair]:
    """Pair every image of a folder with its labels, ``<stem>`` or ``<stem>_labels``.

    Raises
    ------
    DatasetError
        If a folder is missing or an image has no labels.
    """
    truths = _label_files(labels, exclude=images)
    sources = {image_stem(path): path for path in list_images(_folder(images))}
    return _paired(sources, truths, f"image in {images}", f"labels in {labels}")


def pair_predictions(predictions: Path, labels: Path) -> list[Pair]:
    """Pair every truth of a folder with its prediction, each ``<stem>`` or ``<stem>_labels``.

    Raises
    ------
    DatasetError
        If a folder is missing or a truth has no prediction.
    """
    found, truths = _label_files(predictions), _label_files(labels)
    reversed_pairs = _paired(truths, found, f"truth in {labels}", f"prediction in {predictions}")
    return [Pair(pair.name, pair.truth, pair.source) for pair in reversed_pairs]


def _folder(folder: Path) -> Path:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is not a folder.", "Give the folder that holds the files.")
    return folder


def _label_files(folder: Path, exclude: Path | None = None) -> dict[str, Path]:
    """Return label files by stem without ``_labels``; in the folder of the images only those named so."""
    files = sorted(p for p in _folder(folder).iterdir() if image_suffix(p) and not p.name.startswith("."))
    ending = {image_stem(p).removesuffix(_ENDING): p for p in files if image_stem(p).endswith(_ENDING)}
    if exclude is not None and folder.resolve() == exclude.resolve():
        return ending
    return {image_stem(path): path for path in files if not image_stem(path).endswith(_ENDING)} | ending


def _paired(wanted: dict[str, Path], partners: dict[str, Path], what: str, partner: str) -> list[Pair]:
    if not wanted:
        raise DatasetError(f"There is no {what}.", "Give a folder with image files.")
    lonely = [stem for stem in wanted if stem not in partners]
    if lonely:
        raise DatasetError(
            f"{len(lonely)} of {len(wanted)} have no {partner}, for example {wanted[lonely[0]].name}.",
            f"The partner of <stem> is called <stem> or <stem>{_ENDING}.",
        )
    return [Pair(stem, path, partners[stem]) for stem, path in wanted.items()]
