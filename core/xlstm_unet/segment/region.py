"""Regions of an image, and models that need one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import ceil, floor

import numpy as np

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image
from xlstm_unet.spec import ModelSpec

_IN_MM = {"mm": 1.0, "µm": 1e-3}
_SLACK = 1.001
"""Rounding of extents that were just large enough."""


def region_slices(image: Image, region: Sequence[slice] | None) -> dict[str, slice]:
    """Return a slice with start and stop for each axis but C.

    Parameters
    ----------
    image
        The image.
    region
        One slice for each spatial axis, in the order Z, Y, X; negative and missing ends count as in
        indexing. None: all.

    Raises
    ------
    ImageError
        If the number of slices is another, one has a step, or the region is empty.
    """
    axes, shape = image.spatial_axes, image.spatial_shape
    slices = [slice(None)] * len(axes) if region is None else list(region)
    if len(slices) != len(axes) or not all(isinstance(s, slice) and s.step in (None, 1) for s in slices):
        raise ImageError(
            f"{image.name}: region is {region}, expected {len(axes)} slices without steps ({axes}).",
            "For example (slice(0, 256), slice(0, 256)).",
        )
    found = {axis: slice(*s.indices(n)[:2]) for axis, s, n in zip(axes, slices, shape, strict=True)}
    if any(s.stop <= s.start for s in found.values()):
        text = " x ".join(f"{s.start}:{s.stop}" for s in found.values())
        raise ImageError(
            f"{image.name}: region {text} holds no pixel of the image of {shape}.", "Draw it on the image."
        )
    return {axis: found.get(axis, slice(0, image.frames)) for axis in image.label_axes}


def region_in_mm(image: Image, box: Sequence[tuple[float, float]]) -> tuple[slice, ...]:
    """Return the voxels of a box that is given in the world.

    Parameters
    ----------
    image
        A volume with an affine.
    box
        From and to in mm along right, anterior and superior, in any order.

    Returns
    -------
    region
        One slice for each spatial axis (Z, Y, X): the smallest that holds the whole box, and more than that
        where the volume lies oblique.

    Raises
    ------
    ImageError
        If the image does not know its place in the world, or the box lies outside.
    """
    if image.affine is None or image.unit == "pixel" or image.spatial_axes != "ZYX":
        raise ImageError(
            f"{image.name}: a region in mm, but the image does not say where it lies in the world.",
            "Give the region in voxels.",
        )
    world = np.array(list(product(*box))).T / _IN_MM[image.unit]
    indices = np.linalg.solve(image.affine, np.vstack([world, np.ones(8)]))[2::-1]
    spans = [(float(row.min()), float(row.max())) for row in indices]
    if any(high < -0.5 or low > n - 0.5 for (low, high), n in zip(spans, image.spatial_shape, strict=True)):
        raise ImageError(
            f"{image.name}: region {_spans_text(box)} mm lies outside the image, which reaches over "
            f"{_spans_text(_reach(image))} mm (right, anterior, superior).",
            "Check the signs: left, posterior and inferior are negative.",
        )
    return tuple(
        slice(max(0, floor(low + 0.5)), min(n, ceil(high + 0.5)))
        for (low, high), n in zip(spans, image.spatial_shape, strict=True)
    )


def crop(image: Image, window: Mapping[str, slice]) -> Image:
    """Return a part of an image; it shares memory and does not know its place in the world."""
    if all(image.array.shape[image.axes.index(axis)] == s.stop - s.start for axis, s in window.items()):
        return image
    array = image.array[tuple(window.get(axis, slice(None)) for axis in image.axes)]
    return replace(image, array=array, affine=None, header=None)


def check_field_of_view(image: Image, spec: ModelSpec, window: Mapping[str, slice]) -> None:
    """Refuse to show a model more than it was trained to see.

    Extents are compared from the shortest to the longest, so that it does not matter which way the axes run.
    Where the spacing is not known the model's own is assumed.

    Parameters
    ----------
    image
        The image.
    spec
        The model.
    window
        The part of the image that is segmented, as from `region_slices`.

    Raises
    ------
    ImageError
        With the extent found, the largest allowed, and what the model expects.
    """
    view = spec.field_of_view
    axes = image.spatial_axes
    if view is None or len(axes) != spec.dimension:
        return
    if image.spacing is not None and image.unit != "pixel":
        spacing, unit = image.spacing, image.unit
    elif spec.spacing is not None and spec.spacing_unit is not None:
        spacing, unit = spec.spacing, spec.spacing_unit
    else:
        return
    extent = [
        (window[axis].stop - window[axis].start) * step * _IN_MM[unit]
        for axis, step in zip(axes, spacing, strict=True)
    ]
    if all(a <= b * _SLACK for a, b in zip(sorted(extent), sorted(view.max_extent_mm), strict=True)):
        return
    whole = all(window[axis] == slice(0, n) for axis, n in zip(axes, image.spatial_shape, strict=True))
    raise ImageError(
        f"{image.name}: the {'image' if whole else 'region'} shows {_text(extent)} mm, model {spec.name} "
        f"expects {view.description} (usually {_text(view.extent_mm)} mm, "
        f"at most {_text(view.max_extent_mm)} mm).",
        "Give a region around it: a box in napari or 3D Slicer, --region on the command line.",
    )


def _reach(image: Image) -> list[tuple[float, float]]:
    """Return from where to where a volume reaches in the world, in mm."""
    assert image.affine is not None
    ends = [(-0.5, n - 0.5) for n in image.spatial_shape[::-1]]
    corners = image.affine @ np.array([(*corner, 1.0) for corner in product(*ends)]).T
    return [(float(row.min()), float(row.max())) for row in corners[:3] * _IN_MM[image.unit]]


def _spans_text(spans: Sequence[tuple[float, float]]) -> str:
    return ", ".join(f"{low:.4g}:{high:.4g}" for low, high in spans)


def _text(extent: Sequence[float]) -> str:
    return " x ".join(f"{n:.4g}" for n in extent)
