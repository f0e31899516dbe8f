"""Turning volumes so that their axes point where a model expects them, and turning results back.

Only whole axes are swapped and mirrored, so that every voxel keeps its value and its place in the world::

    stored (Z, Y, X) = (L, S, A), sagittal slices        wanted (S, A, R)

    axis 0 runs to the left       ------+                axis 0 of the turned array is stored axis 1
    axis 1 runs upwards                 |                axis 1 is stored axis 2
    axis 2 runs forwards                +--------->      axis 2 is stored axis 0, mirrored

An oblique volume is turned to the nearest whole axes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images.image import Array, Image

_OPPOSITE = dict(zip("LRAPSI", "RLPAIS", strict=True))


@dataclass(frozen=True)
class Turn:
    """How a volume was turned.

    Parameters
    ----------
    order
        For each of the turned axes (Z, Y, X), which stored one it is.
    mirrored
        Whether it runs the other way.
    shape
        Stored voxels along each axis.
    """

    order: tuple[int, ...] = ()
    mirrored: tuple[bool, ...] = ()
    shape: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changes."""
        return self.order != tuple(range(len(self.order))) or any(self.mirrored)

    def array(self, array: Array) -> Array:
        """Turn the last axes (Z, Y, X) of an array; a view."""
        if not self:
            return array
        first = array.ndim - len(self.order)
        turned = array.transpose(*range(first), *(first + axis for axis in self.order))
        return np.flip(turned, tuple(first + axis for axis, flip in enumerate(self.mirrored) if flip))

    def back(self, array: Array) -> Array:
        """Turn the last axes of a turned array (Z, Y, X) to what they were; in C order."""
        if not self:
            return array
        first = array.ndim - len(self.order)
        array = np.flip(array, tuple(first + axis for axis, flip in enumerate(self.mirrored) if flip))
        stored = array.transpose(
            *range(first), *(first + self.order.index(i) for i in range(len(self.order)))
        )
        return np.ascontiguousarray(stored)

    def window(self, window: Mapping[str, slice]) -> dict[str, slice]:
        """Return what a window of the stored volume is in the turned one.

        Parameters
        ----------
        window
            Slices with start and stop for each axis letter; those of Z, Y and X are turned.
        """
        turned = dict(window)
        for axis, (source, flip) in enumerate(zip(self.order, self.mirrored, strict=True)):
            part, length = window["ZYX"[source]], self.shape[source]
            turned["ZYX"[axis]] = slice(length - part.stop, length - part.start) if flip else part
        return turned


def directions(affine: Array) -> str:
    """Return where the array axes (Z, Y, X) of a volume point, such as ``SAR``, to the nearest whole axis.

    Parameters
    ----------
    affine
        4x4, from (x, y, z, 1) to right, anterior, superior; invertible.
    """
    from nibabel.orientations import aff2axcodes

    codes: tuple[str, ...] = aff2axcodes(affine)  # type: ignore[no-untyped-call]
    return "".join(codes)[::-1]


def oriented(image: Image, wanted: str | None) -> tuple[Image, Turn]:
    """Turn a volume so that its array axes (Z, Y, X) point where they should, to the nearest whole axes.

    Parameters
    ----------
    image
        Any image. What has no Z axis or no affine cannot be turned and stays as it is.
    wanted
        Three letters, one each of L and R, A and P, S and I, such as ``SAR``; None for as it is stored.

    Returns
    -------
    image
        The turned image; shares memory, keeps its place in the world and loses the header of its file.
    turn
        Turns arrays, regions and results; false where nothing changed.
    """
    if wanted is None or image.affine is None or image.spatial_axes != "ZYX":
        return image, Turn()
    found = directions(image.affine)
    order = tuple(
        next(i for i, code in enumerate(found) if letter in (code, _OPPOSITE[code])) for letter in wanted
    )
    mirrored = tuple(found[axis] != letter for axis, letter in zip(order, wanted, strict=True))
    turn = Turn(order, mirrored, image.spatial_shape)
    if not turn:
        return image, turn
    turned = replace(
        image,
        array=turn.array(image.array),
        spacing=tuple(image.spacing[axis] for axis in order) if image.spacing else None,
        affine=image.affine @ _index_matrix(turn),
        header=None,
    )
    return turned, turn


def _index_matrix(turn: Turn) -> NDArray[np.float64]:
    """Return the matrix from (x, y, z, 1) of the turned volume to that of the stored one."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for axis, (source, flip) in enumerate(zip(turn.order, turn.mirrored, strict=True)):
        matrix[2 - source, 2 - axis] = -1 if flip else 1
        matrix[2 - source, 3] = turn.shape[source] - 1 if flip else 0
    return matrix
