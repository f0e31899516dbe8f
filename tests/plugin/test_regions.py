"""Regions become the right pixels, through scales, shifts and turns."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Shapes

from napari_xlstm_unet.regions import Region, region_window
from xlstm_unet.errors import ImageError


def _bounds(window: tuple[slice, ...]) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in window]


@pytest.fixture
def viewer() -> ViewerModel:
    made = ViewerModel()
    made.add_image(np.zeros((6, 40, 50), np.uint8), scale=(3, 0.5, 0.5), translate=(10, 1, 2), name="stack")
    return made


def _rectangle(y0: float, x0: float, y1: float, x1: float, z: float | None = None) -> np.ndarray:
    corners = np.array([[y0, x0], [y0, x1], [y1, x1], [y1, x0]])
    return corners if z is None else np.column_stack([np.full(4, z), corners])


def test_slice_follows_the_slider(viewer: ViewerModel) -> None:
    image = viewer.layers["stack"]
    viewer.dims.set_point(0, 10 + 3 * 4)
    window = region_window(Region.SLICE, image, "ZYX", viewer.dims, dimension=2)
    assert _bounds(window) == [(4, 5), (0, 40), (0, 50)]
    window = region_window(Region.SLICE, image, "ZYX", viewer.dims, dimension=3)
    assert _bounds(window) == [(0, 6), (0, 40), (0, 50)]
    window = region_window(Region.SLICE, image, "TYX", viewer.dims, dimension=3)
    assert _bounds(window) == [(4, 5), (0, 40), (0, 50)]


def test_visible_area(viewer: ViewerModel) -> None:
    image = viewer.layers["stack"]
    image.corner_pixels = np.array([[0, 5, 8], [0, 20, 30]])
    viewer.dims.set_point(0, 13)
    assert _bounds(region_window(Region.VISIBLE, image, "ZYX", viewer.dims, dimension=2)) == [
        (1, 2),
        (5, 21),
        (8, 31),
    ]
    viewer.dims.ndisplay = 3
    with pytest.raises(ImageError, match="2D view"):
        region_window(Region.VISIBLE, image, "ZYX", viewer.dims, dimension=2)


def test_visible_area_of_a_pyramid() -> None:
    viewer = ViewerModel()
    fine = np.zeros((64, 96), np.uint8)
    image = viewer.add_image([fine, fine[::2, ::2]], multiscale=True)
    image.data_level = 1
    image.corner_pixels = np.array([[4, 6], [11, 20]])
    window = region_window(Region.VISIBLE, image, "YX", viewer.dims, dimension=2)
    assert _bounds(window) == [(8, 23), (12, 41)]


@pytest.mark.parametrize("planar", [True, False])
def test_box(viewer: ViewerModel, planar: bool) -> None:
    image = viewer.layers["stack"]
    corners = _rectangle(5, 4, 11, 14.5, None if planar else 16)  # in world units
    box = Shapes([corners], shape_type="rectangle")
    window = region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=2, box=box)
    assert _bounds(window) == [(0, 6), (8, 21), (4, 26)]


def test_a_flat_box_may_mean_the_slice_that_is_shown(viewer: ViewerModel) -> None:
    image = viewer.layers["stack"]
    viewer.dims.set_point(0, 16)
    box = Shapes([_rectangle(5, 4, 11, 14.5, 16)], shape_type="rectangle")
    window = region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=2, box=box, deep=False)
    assert _bounds(window) == [(2, 3), (8, 21), (4, 26)]
    deep = Shapes([_rectangle(5, 4, 9, 8, 13), _rectangle(6, 5, 10, 9, 16)], shape_type="rectangle")
    deep.selected_data = {0, 1}
    window = region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=2, box=deep, deep=False)
    assert _bounds(window)[0] == (1, 3)


def test_boxes_of_two_slices_bound_the_depth(viewer: ViewerModel) -> None:
    image = viewer.layers["stack"]
    box = Shapes([_rectangle(5, 4, 9, 8, 13), _rectangle(6, 5, 10, 9, 22)], shape_type="rectangle")
    with pytest.raises(ImageError, match="holds 2 shapes"):
        region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=3, box=box)
    box.selected_data = {0, 1}
    window = region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=3, box=box)
    assert _bounds(window)[0] == (1, 5)


def test_wrong_boxes_say_what_to_do(viewer: ViewerModel) -> None:
    image = viewer.layers["stack"]
    for box, words in (
        (None, "No Shapes layer"),
        (Shapes(), "empty"),
        (Shapes([_rectangle(500, 500, 600, 600)], shape_type="rectangle"), "holds no pixel"),
    ):
        with pytest.raises(ImageError, match=words) as caught:
            region_window(Region.BOX, image, "ZYX", viewer.dims, dimension=2, box=box)
        assert caught.value.hint


def test_colour_axis_is_kept() -> None:
    viewer = ViewerModel()
    image = viewer.add_image(np.zeros((40, 50, 3), np.uint8), rgb=True)
    assert isinstance(image, Image)
    box = Shapes([_rectangle(5, 4, 11, 14)], shape_type="rectangle")
    window = region_window(Region.BOX, image, "YXC", viewer.dims, dimension=2, box=box)
    assert _bounds(window) == [(5, 12), (4, 15), (0, 3)]
