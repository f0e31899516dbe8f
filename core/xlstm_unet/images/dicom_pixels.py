"""Pixels of one DICOM slice: decoded, and rescaled to what they measure."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError

_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")


def read_pixels(slice_: Any, name: str) -> NDArray[Any]:
    """Return the pixels of a slice with its rescale slope and intercept applied.

    Parameters
    ----------
    slice_
        A pydicom data set.
    name
        Name of the file, for messages.

    Returns
    -------
    pixels
        (Y, X), int16 or int32 where all values are whole numbers, else float32.

    Raises
    ------
    ImageError
        If the pixels are damaged or encoded in a way that is not known.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            stored = _decode(slice_)
    except (
        AttributeError,
        KeyError,
        ValueError,
        RuntimeError,
        NotImplementedError,
        OSError,
        EOFError,
    ) as error:
        raise ImageError(
            f"{name}: pixels cannot be decoded ({' '.join(str(error).split())[:200]}).",
            "Export it again, uncompressed.",
        ) from error
    slope, intercept = float(slice_.get("RescaleSlope", 1)), float(slice_.get("RescaleIntercept", 0))
    if not (np.isfinite(slope) and np.isfinite(intercept) and slope != 0):
        raise ImageError(
            f"{name}: rescale slope {slope} and intercept {intercept} make no sense.", "Export it again."
        )
    if slope != 1 or intercept != round(intercept):
        return (stored * slope + intercept).astype(np.float32)
    values = stored.astype(np.int64) + round(intercept)
    small = np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
    return values.astype(np.int16 if small else np.int32)


def _decode(slice_: Any) -> NDArray[Any]:
    syntax = str(slice_.file_meta.TransferSyntaxUID)
    if syntax in _JPEG_LOSSLESS or syntax in _JPEG_LS:
        return _decode_jpeg(slice_, syntax)
    pixels: NDArray[Any] = slice_.pixel_array
    return pixels


def _decode_jpeg(slice_: Any, syntax: str) -> NDArray[Any]:
    """Decode what pydicom needs another library for."""
    import imagecodecs
    from pydicom.encaps import generate_frames

    data = next(generate_frames(slice_.PixelData, number_of_frames=1))
    try:
        decode = imagecodecs.jpegls_decode if syntax in _JPEG_LS else imagecodecs.ljpeg_decode
        pixels: NDArray[Any] = np.asarray(decode(data))
    except RuntimeError as error:
        raise ValueError(str(error)) from error
    if int(slice_.get("PixelRepresentation", 0)) == 1:
        unused = 16 - int(slice_.BitsStored)
        pixels = (pixels.astype(np.uint16) << unused).view(np.int16) >> unused
    return pixels
