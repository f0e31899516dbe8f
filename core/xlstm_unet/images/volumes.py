"""Resampling volumes to another voxel size by nnU-Net's rules, with the same results as its own code.

Splines without smoothing, through the centres of the voxels; the borders of the volume stay where they are.
Where voxels are more than three times as long along one axis as along another, that axis is taken apart: the
slices across it are resized one by one, and then the nearest slice is taken, so that nothing is smeared from
slice to slice.

A spline along one axis is a matrix, so each axis is one product of matrices: the same numbers as
``scipy.ndimage.zoom``, many times faster in three dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images.image import Array
from xlstm_unet.images.resampling import nearest
from xlstm_unet.progress import Cancel, check_cancelled

ANISOTROPY = 3.0
"""Ratio of the longest to the shortest voxel side beyond which the long axis is taken apart."""

Kind = Literal["image", "probabilities", "labels"]

_CHUNK = 2**23
"""Values computed between two looks at ``cancel``."""


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, ...]:
    """Voxels that an array has at another spacing, at least 1 along each axis."""
    return tuple(
        max(1, round(old / new * n)) for n, old, new in zip(shape, spacing, new_spacing, strict=True)
    )


def separate_axis(spacing: Sequence[float], new_spacing: Sequence[float]) -> int | None:
    """Axis of a volume that is taken apart, None where there is none.

    The spacing before decides if it is anisotropic, else the spacing after. Two equally long axes are not
    taken apart, and neither is any axis of a plane.
    """
    if len(spacing) < 3:
        return None
    for sides in (tuple(spacing), tuple(new_spacing)):
        if max(sides) / min(sides) > ANISOTROPY:
            longest = [axis for axis, side in enumerate(sides) if side == max(sides)]
            return longest[0] if len(longest) == 1 else None
    return None


def resample_volume(
    array: Array,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    *,
    shape: Sequence[int] | None = None,
    kind: Kind = "image",
    cancel: Cancel | None = None,
) -> Array:
    """Bring a volume to another voxel size.

    Parameters
    ----------
    array
        (C, Z, Y, X) or (C, Y, X), any real dtype; labels are whole numbers.
    spacing, new_spacing
        Voxel size before and after, in one unit, one number a spatial axis.
    shape
        Voxels after along each spatial axis, where they are known already (going back to an image's own
        grid); by default `resampled_shape`.
    kind
        "image": cubic, kept within the range of the values that were there. "probabilities": linear.
        "labels": each label's mask linear, from one half on; keeps the dtype. Along an axis that is taken
        apart (`separate_axis`) always the nearest slice.
    cancel
        Asked for every few million values.

    Returns
    -------
    array
        (C, *new spatial), float32 (labels: the dtype that they had); the input itself where the shape stays
        and the dtype is right.

    Raises
    ------
    ValueError
        If the numbers of axes do not agree or a size is not positive.
    CancelledError
        If ``cancel`` says so.
    """
    old = array.shape[1:]
    new = tuple(resampled_shape(old, spacing, new_spacing) if shape is None else shape)
    if len(new) != len(old) or min(new) < 1:
        raise ValueError(f"cannot resample an array of shape {array.shape} to {new}")
    if new == old:
        return array if kind == "labels" else np.asarray(array, dtype=np.float32)
    apart = separate_axis(spacing, new_spacing)
    if kind == "labels":
        return _resample_labels(array, new, apart, cancel)
    out = np.empty((len(array), *new), np.float32)
    for source, target in zip(array, out, strict=True):
        target[...] = _resample(source, new, 3 if kind == "image" else 1, apart, cancel)
    return out


def _resample_labels(array: Array, new: tuple[int, ...], apart: int | None, cancel: Cancel | None) -> Array:
    out = np.zeros((len(array), *new), array.dtype)
    for source, target in zip(array, out, strict=True):
        for value in np.unique(source):
            target[_resample(source == value, new, 1, apart, cancel) >= 0.5] = value
    return out


def _resample(
    array: Array, new: tuple[int, ...], order: Literal[1, 3], apart: int | None, cancel: Cancel | None
) -> NDArray[np.float32]:
    """Resample one channel; overshoot is clipped to the range of what a spline went through."""
    result = np.asarray(array, dtype=np.float32)
    slices = tuple(axis for axis in range(result.ndim) if axis != apart)
    low, high = (edge(result, axis=slices, keepdims=True) for edge in (np.min, np.max))
    for axis in sorted(slices, key=lambda axis: new[axis] / array.shape[axis]):
        if new[axis] != array.shape[axis]:
            result = _apply(_spline(array.shape[axis], new[axis], order), result, axis, cancel)
    if order == 3:
        np.clip(result, low, high, out=result)
    if apart is not None and new[apart] != array.shape[apart]:
        result = np.take(result, nearest(array.shape[apart], new[apart]), axis=apart)
    return result


@lru_cache(maxsize=32)
def _spline(old: int, new: int, order: Literal[1, 3]) -> NDArray[np.float32]:
    """Return the (new, old) matrix that resizes an axis, from what scipy makes of each unit vector."""
    from scipy.ndimage import zoom

    columns = [zoom(unit, new / old, order=order, mode="nearest", grid_mode=True) for unit in np.eye(old)]
    return np.stack(columns, axis=1).astype(np.float32)


def _apply(
    matrix: NDArray[np.float32], array: NDArray[np.float32], axis: int, cancel: Cancel | None
) -> NDArray[np.float32]:
    """Multiply a matrix along an axis, in pieces."""
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    blocks = np.ascontiguousarray(array).reshape(prod(before), array.shape[axis], prod(after))
    out = np.empty((len(blocks), len(matrix), blocks.shape[2]), np.float32)
    step = max(1, _CHUNK // (len(matrix) * blocks.shape[2]))
    for start in range(0, len(blocks), step):
        check_cancelled(cancel)
        part = slice(start, start + step)
        if after:
            np.matmul(matrix, blocks[part], out=out[part])
        else:
            out[part, :, 0] = blocks[part, :, 0] @ matrix.T
    return out.reshape(*before, len(matrix), *after)
