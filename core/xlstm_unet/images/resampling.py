"""Resizing arrays of any dimension, smoothed where they shrink."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images.image import Array
from xlstm_unet.progress import Cancel, check_cancelled

_CHUNK = 2**22
"""Values resized between two looks at ``cancel``."""


def resample(
    array: Array,
    factors: Sequence[float] | None = None,
    order: Literal[0, 1, 3] = 1,
    *,
    shape: Sequence[int] | None = None,
    cancel: Cancel | None = None,
) -> Array:
    """Resize the last axes of an array; axes before them (channels, batch) are kept.

    Pixels are areas, as in ``torch.nn.functional.interpolate(align_corners=False)``: the borders of the
    image stay where they are. One axis after the other; where an axis shrinks, the kernel widens with it,
    so that nothing aliases (orders 1 and 3).

    Parameters
    ----------
    array
        (..., *spatial), any real dtype.
    factors
        New size divided by old, one an axis, for the last ``len(factors)`` axes; sizes are rounded, at
        least 1.
    order
        0 nearest (labels; keeps the dtype), 1 linear, 3 cubic (float32 result).
    shape
        New size instead of factors.
    cancel
        Asked for every few million values.

    Returns
    -------
    array
        (..., *new spatial); the input itself where nothing changes (and the dtype is right).

    Raises
    ------
    ValueError
        If both or neither of ``factors`` and ``shape`` are given, or a size is not positive.
    """
    if (factors is None) == (shape is None):
        raise ValueError("resample needs either factors or shape")
    count = len(factors if factors is not None else shape or ())
    old = array.shape[array.ndim - count :]
    if factors is not None:
        new = tuple(max(1, round(n * factor)) for n, factor in zip(old, factors, strict=True))
    else:
        new = tuple(int(n) for n in shape or ())
    if count > array.ndim or min(new, default=1) < 1:
        raise ValueError(f"cannot resample an array of shape {array.shape} to {new}")
    first = array.ndim - count
    shrinking_first = sorted(range(count), key=lambda i: new[i] / old[i])
    if order == 0:
        for i in shrinking_first:
            if new[i] != old[i]:
                array = np.take(array, nearest(old[i], new[i]), axis=first + i)
        return array
    result = np.asarray(array, dtype=np.float32)
    for i in shrinking_first:
        if new[i] != old[i]:
            result = _resize_axis(result, first + i, new[i], order, cancel)
    return result


def nearest(old: int, new: int) -> NDArray[np.intp]:
    """Return which of ``old`` pixels each of ``new`` takes its value from."""
    centres = (np.arange(new) + 0.5) * (old / new)
    return np.minimum(centres.astype(np.intp), old - 1)


def _resize_axis(
    array: NDArray[np.float32], axis: int, size: int, order: int, cancel: Cancel | None
) -> NDArray[np.float32]:
    """Resize one axis with Pillow, whose compiled kernels keep float32 and widen when shrinking."""
    from PIL import Image as Pillow

    kernel = Pillow.Resampling.BILINEAR if order == 1 else Pillow.Resampling.BICUBIC
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    if not after:
        rows = np.ascontiguousarray(array).reshape(-1, array.shape[axis])
        resized = np.empty((len(rows), size), dtype=np.float32)
        step = max(1, _CHUNK // rows.shape[1])
        for start in range(0, len(rows), step):
            check_cancelled(cancel)
            part = rows[start : start + step]
            resized[start : start + step] = _resized(part, size, len(part), kernel)
        return resized.reshape(*before, size)
    blocks = np.ascontiguousarray(array).reshape(-1, array.shape[axis], int(np.prod(after)))
    out = np.empty((len(blocks), size, blocks.shape[2]), dtype=np.float32)
    step = max(1, _CHUNK // blocks.shape[1])
    for block, target in zip(blocks, out, strict=True):
        for start in range(0, blocks.shape[2], step):
            check_cancelled(cancel)
            part = np.ascontiguousarray(block[:, start : start + step])
            target[:, start : start + step] = _resized(part, part.shape[1], size, kernel)
    return out.reshape(*before, size, *after)


def _resized(plane: NDArray[np.float32], width: int, height: int, kernel: int) -> NDArray[np.float32]:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(plane).resize((width, height), Pillow.Resampling(kernel))
    return np.asarray(picture, dtype=np.float32)
