"""Reading TIFF, OME-TIFF and ImageJ TIFF files, with axes and pixel size."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import AXES, AXES_HINT, Array, Image
from xlstm_unet.images.limits import check_size
from xlstm_unet.images.tiff_spacing import read_spacing

_AGAIN = "Copy or export it again."
_UNNAMED = "IQ"
"""Axes that tifffile calls sequence (pages) or unknown."""


@dataclass(frozen=True)
class _Reading:
    """How the pixels of a series are taken."""

    axes: str
    said: str
    unnamed: bool = False


def read_tiff(path: Path, name: str, limit: int | None) -> Image:
    """Read the first series of a TIFF file.

    Axes come from OME-XML, ImageJ's or tifffile's description; a stack of pages without one is read as Z.
    Colour samples are channels; alpha is dropped; palettes become colour; 1-bit becomes 0 and 255.

    Raises
    ------
    ImageError
        If the file is damaged, too large, or its axes cannot be told.
    """
    with _messages() as messages:
        try:
            with tifffile.TiffFile(path) as file:
                return _read_series(file, path, name, limit)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(f"{name}: not enough memory for this image.", "Crop it first.") from error
        except Exception as error:
            # Damaged files raise almost anything: struct.error, IndexError, codec errors.
            details = str(error) or (messages[0] if messages else type(error).__name__)
            raise ImageError(f"{name}: TIFF file is damaged or cut off ({details}).", _AGAIN) from error


def _read_series(file: tifffile.TiffFile, path: Path, name: str, limit: int | None) -> Image:
    if not file.series:
        raise ImageError(f"{name}: TIFF file holds no image.", _AGAIN)
    series = file.series[0]
    shape = tuple(int(n) for n in series.shape)
    if series.dtype is None or not shape or 0 in shape:
        raise ImageError(f"{name}: TIFF image of shape {shape} and dtype {series.dtype} is empty.", _AGAIN)
    check_size(name, shape, series.dtype.itemsize, limit)
    _check_whole(file, series, path, name)
    reading = _read_axes(series.axes, shape, name)
    page = series.keyframe
    array, axes, said = _plain_pixels(series.asarray(), reading.axes, page, name)
    if len(file.series) > 1:
        said += f", the first of {len(file.series)} images in the file"
    if reading.unnamed:
        said += f", pages read as {'Z' if 'Z' in axes else 'C'}"
    spacing, unit, note = read_spacing(file, axes)
    return Image(
        array,
        axes,
        spacing,
        unit,
        name=name,
        read_as=f"{_flavour(file)}{said}: axes {axes}{note}.",
    )


def _flavour(file: tifffile.TiffFile) -> str:
    return "OME-TIFF" if file.is_ome else "ImageJ TIFF" if file.is_imagej else "TIFF"


def _check_whole(file: tifffile.TiffFile, series: Any, path: Path, name: str) -> None:
    """Refuse a file whose pixels lie beyond its end or whose pages are fewer than it says."""
    size = path.stat().st_size
    if series.dataoffset is not None and series.dataoffset + series.nbytes > size:
        raise ImageError(
            f"{name}: TIFF file of {size} bytes is cut off, {series.dataoffset + series.nbytes} expected.",
            _AGAIN,
        )
    for page in series.pages:
        if page is None:
            raise ImageError(
                f"{name}: {len(series.pages)} TIFF pages expected, some are missing.",
                "Put all files of the set into one folder, or export the image as one file.",
            )
        if page.parent is not file:
            continue
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if max(ends, default=0) > size:
            raise ImageError(
                f"{name}: TIFF file of {size} bytes is cut off, at least {max(ends)} expected.", _AGAIN
            )


def _read_axes(axes: str, shape: tuple[int, ...], name: str) -> _Reading:
    """Translate tifffile's axis letters to ours."""
    unnamed = [i for i, axis in enumerate(axes) if axis in _UNNAMED]
    known = axes
    if len(unnamed) == 1 and "Z" not in axes:
        known = axes[: unnamed[0]] + "Z" + axes[unnamed[0] + 1 :]
    if "S" in known and "C" not in known:
        known = known.replace("S", "C")
    if set(known) - set(AXES) or len(set(known)) != len(known) or not {"Y", "X"} <= set(known):
        raise ImageError(
            f"{name}: TIFF image of shape {shape} has axes {axes}, which cannot be told.", AXES_HINT
        )
    return _Reading(known, "", unnamed=bool(unnamed))


def _plain_pixels(array: Array, axes: str, page: Any, name: str) -> tuple[Array, str, str]:
    """Undo what is not a plain pixel value: palettes, single bits, inverted gray, alpha."""
    photometric = tifffile.PHOTOMETRIC
    said = ""
    if page.photometric == photometric.PALETTE and page.colormap is not None:
        colours = np.moveaxis(page.colormap, 0, -1)
        colours = (colours >> 8).astype(np.uint8)
        return colours[array], axes + "C", ", palette looked up as colour"
    if page.photometric in (photometric.SEPARATED, photometric.CIELAB):
        raise ImageError(
            f"{name}: TIFF colour space is {page.photometric.name}, expected gray or RGB.",
            "Export it as RGB.",
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
        said = ", 1 bit read as 0 and 255"
    if page.photometric == photometric.MINISWHITE and array.dtype.kind == "u":
        array = np.iinfo(array.dtype).max - array
        said += ", inverted since its 0 is white"
    alpha = [int(sample) in (1, 2) for sample in page.extrasamples]
    if "C" in axes and alpha and alpha[-1] and page.samplesperpixel == array.shape[axes.index("C")]:
        array = np.delete(array, -1, axis=axes.index("C"))
        said += ", alpha dropped"
    return array, axes, said


@contextmanager
def _messages() -> Iterator[list[str]]:
    """Collect what tifffile logs, which else goes to the terminal."""
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            collected.append(record.getMessage())

    logger = logging.getLogger("tifffile")
    handler = Collector()
    propagate = logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield collected
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
