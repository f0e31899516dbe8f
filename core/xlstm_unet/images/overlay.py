"""Pictures to look at: the outlines of labels drawn on an image."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.files import atomic_path
from xlstm_unet.images.image import Array, Image
from xlstm_unet.images.resampling import resample

MAX_SIDE = 2048
"""Longest side of an overlay picture in pixels; larger images are shrunk."""

_COLOURS = 32


def draw_overlay(image: Image, labels: ArrayLike, *, max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """Draw the image with the outline of every label in one of 32 bright colours.

    Of a stack or a time series the plane with most labelled pixels is shown. Colour images are shown as
    they are, others stretched between their 0.5 and 99.8 percentiles; several channels that are no colour
    are averaged.

    Parameters
    ----------
    image
        The image.
    labels
        Integers, axes ``image.label_axes``.
    max_side
        Longest side of the picture.

    Returns
    -------
    picture
        (height, width, 3).

    Raises
    ------
    ImageError
        If the labels do not fit the image.
    """
    array = image.check_labels(labels)
    index, part = max(image.parts(2), key=lambda item: int(np.count_nonzero(array[item[0]])))
    plane, outlined = part.array, array[index]
    if "C" not in part.axes:
        plane = plane[np.newaxis]
    factor = min(1.0, max_side / max(outlined.shape))
    if factor < 1.0:
        shape = tuple(max(1, round(n * factor)) for n in outlined.shape)
        plane, outlined = resample(plane, shape=shape), resample(outlined, shape=shape, order=0)
    colour = part.channels == 3 and image.array.dtype in (np.uint8, np.uint16)
    picture = _as_colour(plane, float(np.iinfo(image.array.dtype).max)) if colour else _as_gray(plane)
    edges = outlines(outlined)
    picture[edges] = palette()[outlined[edges] % _COLOURS]
    return picture


def write_overlay(path: Path | str, image: Image, labels: ArrayLike, *, max_side: int = MAX_SIDE) -> None:
    """Write what `draw_overlay` draws as a PNG.

    Parameters
    ----------
    path
        Ends in ``.png``.
    image, labels, max_side
        As for `draw_overlay`.

    Raises
    ------
    ImageError
        If the labels do not fit the image.
    OutputError
        If the file cannot be written.
    """
    import imagecodecs

    picture = draw_overlay(image, labels, max_side=max_side)
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(picture))


def outlines(labels: Array) -> NDArray[np.bool_]:
    """Mark the pixels of objects that touch another label or background along an axis."""
    edges = np.zeros(labels.shape, dtype=np.bool_)
    for axis in range(labels.ndim):
        ahead: list[Any] = [slice(None)] * labels.ndim
        behind = list(ahead)
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        differs = labels[tuple(ahead)] != labels[tuple(behind)]
        edges[tuple(ahead)] |= differs
        edges[tuple(behind)] |= differs
    return edges & (labels > 0)


def _as_colour(plane: Array, white: float) -> NDArray[np.uint8]:
    scaled = np.moveaxis(plane, 0, -1) * (255.0 / white)
    return np.ascontiguousarray(scaled.clip(0, 255), dtype=np.uint8)


def _as_gray(plane: Array) -> NDArray[np.uint8]:
    gray = plane.mean(axis=0, dtype=np.float64)
    low, high = np.percentile(gray, (0.5, 99.8))
    if high <= low:
        low, high = gray.min(), max(gray.max(), gray.min() + 1)
    scaled = ((gray - low) * (255.0 / (high - low))).clip(0, 255).astype(np.uint8)
    return np.repeat(scaled[..., np.newaxis], 3, axis=2)


def palette() -> NDArray[np.uint8]:
    """Return the (32, 3) bright colours that labels are drawn in; neighbours differ clearly."""
    hues = [(0.137 + 0.618034 * i) % 1.0 for i in range(_COLOURS)]
    return np.array(
        [[round(255 * c) for c in colorsys.hsv_to_rgb(hue, 0.85, 1.0)] for hue in hues], dtype=np.uint8
    )
