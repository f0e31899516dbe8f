"""Reading TIFF, OME-TIFF and ImageJ TIFF files, with axes and pixel size."""

from __future__ import annotations

import logging
import math
import struct
from collections.abc import Iterator
from contextlib import contextmanager
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
_ALPHA = (1, 2)
"""Values of the tag ExtraSamples that mean transparency."""


def read_tiff(path: Path, name: str, limit: int | None, axes: str | None = None) -> Image:
    """Read the first series of a TIFF file.

    Axes come from OME-XML, ImageJ's or tifffile's description; a stack of pages without one is read as Z.
    Colour samples are channels; alpha is dropped; palettes become colour; 1 bit becomes 0 and 1.

    Raises
    ------
    ImageError
        If the file is damaged, too large, or its axes cannot be told.
    """
    with _messages() as messages:
        try:
            with tifffile.TiffFile(path) as file:
                return _read_series(file, path, name, limit, axes)
        except ImageError:
            raise
        except MemoryError as error:
            raise ImageError(f"{name}: not enough memory for this image.", "Crop it first.") from error
        except Exception as error:
            # Damaged files raise almost anything: struct.error, IndexError, codec errors.
            details = str(error) or (messages[0] if messages else type(error).__name__)
            raise ImageError(f"{name}: TIFF file is damaged or cut off ({details}).", _AGAIN) from error


def _read_series(
    file: tifffile.TiffFile, path: Path, name: str, limit: int | None, axes: str | None
) -> Image:
    if not file.series:
        raise ImageError(f"{name}: TIFF file holds no image.", _AGAIN)
    series = file.series[0]
    shape = tuple(int(n) for n in series.shape)
    if series.dtype is None or not shape or 0 in shape:
        raise ImageError(f"{name}: TIFF image of shape {shape} and dtype {series.dtype} is empty.", _AGAIN)
    check_size(name, shape, series.dtype.itemsize, limit)
    _check_whole(file, series, path, name)
    array, letters, said = _plain_pixels(series.asarray(), series.axes, series.keyframe, name)
    if len(file.series) > 1:
        said += f", the first of {len(file.series)} images in the file"
    if axes is None:
        axes = _named_axes(letters, array.shape, name)
        said += ", pages read as Z" if set(letters) & set(_UNNAMED) else ""
    spacing, unit, note = read_spacing(file, axes)
    read_as = f"{_flavour(file)}{said}: axes {axes}{note}."
    return Image(array, axes, spacing, unit, name=name, read_as=read_as)


def _flavour(file: tifffile.TiffFile) -> str:
    return "OME-TIFF" if file.is_ome else "ImageJ TIFF" if file.is_imagej else "TIFF"


def _check_whole(file: tifffile.TiffFile, series: Any, path: Path, name: str) -> None:
    """Refuse a file whose pixels lie beyond its end or whose pages are fewer than it says."""
    size = path.stat().st_size
    _check_chain(file, size, name)
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
        if len(page.dataoffsets) < math.prod(series.keyframe.chunked):
            raise ImageError(
                f"{name}: TIFF header promises {math.prod(series.keyframe.chunked)} pieces of image, "
                f"the file has {len(page.dataoffsets)}.",
                _AGAIN,
            )
        ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
        if max(ends, default=0) > size:
            raise ImageError(
                f"{name}: TIFF file of {size} bytes is cut off, at least {max(ends)} expected.", _AGAIN
            )


def _check_chain(file: tifffile.TiffFile, size: int, name: str) -> None:
    """Follow the chain of page headers to its end: tifffile passes over pages that a cut has taken."""
    handle, layout = file.filehandle, file.tiff
    handle.seek(4 if layout.offsetsize == 4 else 8)
    seen: set[int] = set()
    offset = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0]
    while offset:
        if offset in seen or offset + layout.tagnosize > size:
            raise ImageError(
                f"{name}: TIFF file of {size} bytes is damaged or cut off, "
                f"page {len(seen) + 1} expected at byte {offset}.",
                _AGAIN,
            )
        seen.add(offset)
        handle.seek(offset)
        tags = struct.unpack(layout.tagnoformat, handle.read(layout.tagnosize))[0]
        handle.seek(offset + layout.tagnosize + tags * layout.tagsize)
        offset = struct.unpack(layout.offsetformat, handle.read(layout.offsetsize))[0]


def _named_axes(letters: str, shape: tuple[int, ...], name: str) -> str:
    """Translate tifffile's axis letters to ours."""
    unnamed = [letter for letter in letters if letter in _UNNAMED]
    axes = letters
    if len(unnamed) == 1 and "Z" not in letters:
        axes = axes.replace(unnamed[0], "Z")
    if "C" not in axes:
        axes = axes.replace("S", "C")
    if set(axes) - set(AXES) or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise ImageError(
            f"{name}: TIFF image of shape {shape} has axes {letters}, which can be read in several ways.",
            AXES_HINT,
        )
    return axes


def _plain_pixels(array: Array, letters: str, page: Any, name: str) -> tuple[Array, str, str]:
    """Undo what is not a plain pixel value: palettes, single bits, alpha.

    ``letters`` are tifffile's axes. Returns pixels, their axes and what was done.
    """
    photometric = tifffile.PHOTOMETRIC
    said = ""
    if page.photometric == photometric.PALETTE and page.colormap is not None:
        colours = np.moveaxis(page.colormap, 0, -1)
        colours = (colours >> 8).astype(np.uint8)
        return colours[array], letters + "S", ", palette looked up as colour"
    if page.photometric in (photometric.SEPARATED, photometric.CIELAB):
        raise ImageError(
            f"{name}: TIFF colour space is {page.photometric.name}, expected gray or RGB.",
            "Export it as RGB.",
        )
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
        said = ", 1 bit read as 0 and 1"
    if page.photometric == photometric.MINISWHITE:
        said += ", made to be shown with 0 as white, values kept"
    if "S" in letters and any(int(sample) in _ALPHA for sample in page.extrasamples[-1:]):
        samples = letters.index("S")
        array, said = np.delete(array, -1, axis=samples), said + ", alpha dropped"
        if array.shape[samples] == 1:
            array, letters = array.squeeze(samples), letters.replace("S", "")
    return array, letters, said


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
