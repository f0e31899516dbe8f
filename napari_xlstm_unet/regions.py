"""Which part of a layer to segment: all of it, what is on the screen, one slice, or a box drawn in Shapes."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from xlstm_unet.errors import ImageError

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image, Labels, Shapes

    from napari_xlstm_unet.geometry import Window


class Region(StrEnum):
    """What the Segment button works on; the values are what the dock shows."""

    ALL = "Whole image"
    VISIBLE = "Visible area"
    SLICE = "This slice"
    BOX = "Box in Shapes"


def region_window(
    region: Region,
    layer: Image | Labels,
    axes: str,
    dims: Dims,
    *,
    dimension: int,
    box: Shapes | None = None,
    deep: bool = True,
) -> Window:
    """Return the part of the full-resolution array to segment, one slice for each axis.

    Parameters
    ----------
    region
        What the user chose.
    layer
        The image.
    axes
        How its array is read.
    dims
        Dims of the viewer: which slice is shown.
    dimension
        Dimension of the model. With 3, ``SLICE`` and ``VISIBLE`` keep the whole depth.
    box
        Layer with the box, for ``BOX``.
    deep
        Whether a box that is flat in a stack means its whole depth; else the slice that is shown.

    Raises
    ------
    ImageError
        If the region is empty or cannot be told.
    """
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    window = [slice(0, length) for length in shape]
    if region is Region.BOX:
        whole = window.copy()
        if not deep:
            _current_step(window, layer, axes, dims, 2)
        _box_window(window, whole, layer, axes, box)
    elif region is not Region.ALL:
        _current_step(window, layer, axes, dims, dimension)
        if region is Region.VISIBLE:
            _visible_window(window, layer, axes, dims)
    if any(part.stop <= part.start for part in window):
        raise ImageError(
            f"The region '{region}' holds no pixel of the image '{layer.name}'.",
            "Move the view or the box over the image, or choose 'Whole image'.",
        )
    return tuple(window)


def _current_step(window: list[slice], layer: Image | Labels, axes: str, dims: Dims, dimension: int) -> None:
    here = np.round(layer.world_to_data(dims.point)).astype(int)
    for axis in "T" if dimension == 3 else "TZ":
        if axis in axes:
            place = axes.index(axis)
            step = int(np.clip(here[place], 0, window[place].stop - 1))
            window[place] = slice(step, step + 1)


def _visible_window(window: list[slice], layer: Image | Labels, axes: str, dims: Dims) -> None:
    if dims.ndisplay != 2:
        raise ImageError(
            "'Visible area' has no meaning in the 3D view.",
            "Switch to the 2D view, or choose another region.",
        )
    corners = np.asarray(layer.corner_pixels, dtype=float)
    if layer.multiscale:
        corners = corners * np.asarray(layer.downsample_factors[layer.data_level])
    shown = [place - (dims.ndim - layer.ndim) for place in dims.displayed]
    for place in shown:
        if place < 0 or axes[place] not in "ZYX" or window[place].stop - window[place].start == 1:
            continue
        low, high = int(np.floor(corners[0, place])), int(np.ceil(corners[1, place])) + 1
        window[place] = _clipped(low, high, window[place])


def _box_window(
    window: list[slice], whole: list[slice], layer: Image | Labels, axes: str, box: Shapes | None
) -> None:
    hint = "Draw a rectangle in a Shapes layer and choose that layer beside 'Box in Shapes'."
    if box is None:
        raise ImageError("No Shapes layer is chosen for the box.", hint)
    chosen = sorted(box.selected_data) or list(range(len(box.data)))
    if not chosen:
        raise ImageError(f"The Shapes layer '{box.name}' is empty.", hint)
    if len(chosen) > 1 and not box.selected_data:
        raise ImageError(
            f"The Shapes layer '{box.name}' holds {len(chosen)} shapes.",
            "Select the one to use, or delete the others.",
        )
    points = np.array(
        [layer.world_to_data(box.data_to_world(vertex)) for index in chosen for vertex in box.data[index]]
    )
    low, high = points.min(axis=0), points.max(axis=0)
    for place, axis in enumerate(axes[: layer.ndim]):
        deep = axis in "TZ" and high[place] - low[place] < 1  # a flat shape means the whole depth
        if axis != "C" and not deep:
            start, stop = int(np.floor(low[place] + 0.5)), int(np.ceil(high[place] + 0.5))
            window[place] = _clipped(start, stop, whole[place])


def _clipped(start: int, stop: int, whole: slice) -> slice:
    return slice(max(start, whole.start), min(stop, whole.stop))
