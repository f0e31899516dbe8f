"""Whether images lie on one grid, and joining images of one channel each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Image

TOLERANCE = 0.5
"""Voxels by which places may differ: headers are rounded."""


def check_same_grid(image: Image, other: Image, what: str) -> None:
    """Refuse an image that does not lie on another's grid.

    Sizes must be equal, and every corner in the same place to half a voxel where both know their place.

    Parameters
    ----------
    image
        The image that gives the grid.
    other
        The image that should lie on it.
    what
        What the other is, for the message: "channel", "label file".

    Raises
    ------
    ImageError
        With both sizes, or the distance between the corners.
    """
    if image.spatial_shape != other.spatial_shape:
        raise ImageError(
            f"{other.name}: {what} of {_size(other)} voxels, {image.name} has {_size(image)} "
            f"({image.spatial_axes}).",
            "Both must lie on the same grid: resample one to the other.",
        )
    if image.affine is None or other.affine is None or image.spatial_axes != "ZYX":
        return
    ends = [(0, n - 1) for n in image.spatial_shape[::-1]]
    corners = np.array([(*corner, 1) for corner in product(*ends)]).T
    indices = np.linalg.solve(image.affine, other.affine @ corners)
    off = float(np.abs(indices - corners).max())
    if off > TOLERANCE:
        raise ImageError(
            f"{other.name}: {what} lies up to {off:.3g} voxels away from {image.name}, "
            f"expected the same place (to {TOLERANCE:g} voxel).",
            "Both must lie on the same grid: resample one to the other, or check how they were exported.",
        )


def join_channels(images: Sequence[Image]) -> Image:
    """Make one image of images of one channel each.

    Parameters
    ----------
    images
        At least one, on one grid, in the order of the channels.

    Returns
    -------
    image
        With axes C and those of the images; name, place and header of the first.

    Raises
    ------
    ImageError
        If an image has channels already, or does not lie on the grid of the first.
    """
    first = images[0]
    for image in images:
        if image.channels > 1:
            raise ImageError(
                f"{image.name}: {image.channels} channels (axes {image.axes}), expected a file for each."
            )
        if image.frames != first.frames:
            raise ImageError(
                f"{image.name}: {image.frames} time points, {first.name} has {first.frames}.",
                "All channels need the same number.",
            )
        check_same_grid(first, image, "channel")
    axes = first.label_axes
    arrays = [image.array.reshape(first.label_shape) for image in images]
    return replace(
        first,
        array=np.stack(arrays),
        axes=f"C{axes}",
        read_as=f"{len(images)} files, one a channel. {first.read_as}",
    )


def _size(image: Image) -> str:
    return " x ".join(map(str, image.spatial_shape))
