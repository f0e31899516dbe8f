"""Where a layer lies in the world: pixel sizes for the model, and the place of a result layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari.layers import Image, Labels

KEY = "xlstm_unet"
"""Where the plugin's own facts lie in a layer's metadata."""

SPACE = "LPS"
"""World coordinates of volumes that the plugin reads: left, posterior, superior, as in DICOM."""

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From (left, posterior, superior) to (right, anterior, superior), and back."""

Window = tuple[slice, ...]
"""One slice with a start and a stop for each axis of an array."""


@dataclass(frozen=True)
class PixelSize:
    """Pixel sizes along the spatial axes, in the order Z, Y, X.

    Parameters
    ----------
    spacing
        One number an axis; None where the layer has no unit of length.
    unit
        ``µm`` or ``mm``; ``pixel`` without one.
    """

    spacing: tuple[float, ...] | None
    unit: Literal["mm", "µm", "pixel"]


def pixel_size(layer: Image, axes: str, factors: Sequence[float]) -> PixelSize:
    """Return the pixel sizes of a level of ``layer`` whose pixels are ``factors`` times the first level's."""
    places = [axes.index(axis) for axis in "ZYX" if axis in axes]
    units = [layer.units[place] for place in places]
    if any(str(unit.dimensionality) != "[length]" for unit in units):
        return PixelSize(None, "pixel")
    microns = [float((1 * unit).to("micrometer").magnitude) for unit in units]
    lengths = np.linalg.norm(world_matrix(layer)[:-1, :-1], axis=0)
    sizes = [float(lengths[p]) * factors[p] * micron for p, micron in zip(places, microns, strict=True)]
    if min(sizes) >= 100 or any("milli" in str(unit) for unit in units):
        return PixelSize(tuple(size / 1000 for size in sizes), "mm")
    return PixelSize(tuple(sizes), "µm")


def world_matrix(layer: Image | Labels) -> NDArray[np.float64]:
    """Return the matrix (n + 1, n + 1) that takes a layer's array indices to world coordinates."""
    own = np.eye(layer.ndim + 1)
    own[:-1, :-1] = layer.rotate @ _full_shear(np.asarray(layer.shear), layer.ndim) @ np.diag(layer.scale)
    own[:-1, -1] = layer.translate
    return np.asarray(layer.affine.affine_matrix) @ own


def anatomical_affine(
    layer: Image | Labels, axes: str, factors: Sequence[float]
) -> NDArray[np.float64] | None:
    """Return the 4x4 matrix from voxels (x, y, z) of a level to right, anterior, superior in mm.

    Only for volumes whose reader said that world coordinates are anatomical (`SPACE` in the layer's
    metadata): left, posterior, superior, in the order of the layer's axes; None for all others.
    """
    if layer.metadata.get(KEY, {}).get("space") != SPACE or not set("ZYX") <= set(axes):
        return None
    places = [axes.index(axis) for axis in "XYZ"]
    whole = world_matrix(layer)
    matrix = np.eye(4)
    matrix[:3, :3] = whole[np.ix_(places, places)] * np.array([factors[place] for place in places])
    shift = np.array([(factors[place] - 1) / 2 for place in places])
    matrix[:3, 3] = whole[places, -1] + whole[np.ix_(places, places)] @ shift
    return TO_RAS @ matrix


def level_factors(layer: Image, level: int) -> tuple[float, ...]:
    """Return how many pixels of the first level one pixel of ``level`` spans, for each axis of the array."""
    if not layer.multiscale:
        return (1.0,) * len(layer.data.shape)
    first, shape = layer.data[0].shape, layer.data[level].shape
    return tuple(a / b for a, b in zip(first, shape, strict=True))


def best_level(layer: Image, axes: str, wanted: float) -> int:
    """Return the coarsest level whose pixels are at most ``wanted`` times as wide as the first level's."""
    if not layer.multiscale:
        return 0
    x = axes.index("X")
    fine = [level for level in range(len(layer.data)) if level_factors(layer, level)[x] <= wanted * 1.001]
    return max(fine, default=0)


def placement(layer: Image, axes: str, window: Window, factors: Sequence[float]) -> dict[str, Any]:
    """Return the keyword arguments that put labels of ``window`` exactly over ``layer``.

    Parameters
    ----------
    layer
        The image that was segmented.
    axes
        How its array is read, one letter an axis.
    window
        What was segmented, in pixels of the level used.
    factors
        Width of those pixels in pixels of the first level, one number an array axis.

    Returns
    -------
    dict
        scale, translate, rotate, shear, affine, units and axis_labels, without the channel axis.
    """
    keep = [place for place, axis in enumerate(axes[: layer.ndim]) if axis != "C"]
    factor = np.array([factors[place] for place in keep])
    start = np.array([window[place].start for place in keep]) * factor + (factor - 1) / 2
    scale = np.asarray(layer.scale)[keep]
    rotate = np.asarray(layer.rotate)[np.ix_(keep, keep)]
    shear = _full_shear(np.asarray(layer.shear), layer.ndim)[np.ix_(keep, keep)]
    return {
        "scale": scale * factor,
        "translate": np.asarray(layer.translate)[keep] + rotate @ shear @ (scale * start),
        "rotate": rotate,
        "shear": shear,
        "affine": np.asarray(layer.affine.set_slice(keep).affine_matrix),
        "units": tuple(layer.units[place] for place in keep),
        "axis_labels": tuple(layer.axis_labels[place] for place in keep),
    }


def _full_shear(shear: NDArray[np.float64], ndim: int) -> NDArray[np.float64]:
    """Return the matrix that a layer may give as the vector of its upper triangle."""
    if shear.ndim == 2:
        return shear
    full = np.eye(ndim)
    full[np.triu_indices(ndim, 1)] = shear
    return full
