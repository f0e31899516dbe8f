"""Result layers lie exactly over what was segmented, whatever the image's transform."""

from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image, Labels
from scipy.spatial.transform import Rotation

from napari_xlstm_unet.geometry import best_level, level_factors, pixel_size, placement

TURN = Rotation.from_euler("xyz", [0.3, -0.2, 0.5]).as_matrix()


def _window(*parts: tuple[int, int]) -> tuple[slice, ...]:
    return tuple(slice(*part) for part in parts)


@pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
@pytest.mark.parametrize(
    ("axes", "shape", "window"),
    [
        ("YX", (40, 50), _window((3, 20), (7, 30))),
        ("CYX", (3, 40, 50), _window((0, 3), (3, 20), (7, 30))),
        ("ZCYX", (6, 2, 40, 50), _window((2, 3), (0, 2), (0, 40), (5, 50))),
        ("YXC", (40, 50, 3), _window((3, 20), (7, 30), (0, 3))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_pixel_stays_where_it_was(axes: str, shape: tuple[int, ...], window: tuple[slice, ...]) -> None:
    rgb = axes.endswith("C")
    ndim = len(shape) - rgb
    spatial = [place for place, axis in enumerate(axes[:ndim]) if axis in "ZYX"]
    rotate = np.eye(ndim)
    turn = TURN[: len(spatial), : len(spatial)] if len(spatial) == 3 else TURN[1:, 1:]
    rotate[np.ix_(spatial, spatial)] = np.linalg.qr(turn)[0]
    affine = np.eye(ndim + 1)
    affine[:ndim, ndim] = np.arange(ndim) - 0.5
    affine[spatial[-1], spatial[-2]] = 0.1
    shear = np.eye(ndim)
    shear[spatial[-2], spatial[-1]] = 0.2
    image = Image(
        np.zeros(shape, np.uint8),
        rgb=rgb,
        scale=np.linspace(0.5, 2, ndim),
        translate=np.arange(ndim) * 10.0,
        rotate=rotate,
        shear=shear,
        affine=affine,
        units=("um",) * ndim,
        axis_labels=[axis.lower() for axis in axes[:ndim]],
    )
    placed = placement(image, axes, window, (1.0,) * len(shape))
    kept = [place for place, axis in enumerate(axes[:ndim]) if axis != "C"]
    labels = Labels(np.zeros([window[place].stop - window[place].start for place in kept], int), **placed)
    assert labels.axis_labels == tuple(axes[place].lower() for place in kept)
    assert {str(unit) for unit in labels.units} == {"micrometer"}
    for corner in (np.zeros(len(kept)), np.array(labels.data.shape) - 1.0):
        point = np.zeros(ndim)
        point[kept] = corner + [window[place].start for place in kept]
        np.testing.assert_allclose(labels.data_to_world(corner), np.array(image.data_to_world(point))[kept])


def test_a_coarse_level_covers_the_same_ground() -> None:
    fine = np.zeros((64, 96), np.uint8)
    image = Image([fine, fine[::2, ::2], fine[::4, ::4]], multiscale=True, scale=(0.5, 0.5))
    factors = level_factors(image, 2)
    assert factors == (4, 4)
    labels = Labels(np.zeros((16, 24), int), **placement(image, "YX", _window((0, 16), (0, 24)), factors))
    for corner in (np.array([-0.5, -0.5]), np.array([15.5, 23.5])):
        over = (corner + 0.5) * 4 - 0.5  # the same edge in fine pixels
        np.testing.assert_allclose(labels.data_to_world(corner), image.data_to_world(over))


def test_level_by_pixel_size() -> None:
    fine = np.zeros((64, 96), np.uint8)
    image = Image([fine, fine[::2, ::2], fine[::4, ::4]], multiscale=True)
    assert [best_level(image, "YX", wanted) for wanted in (0.5, 1, 1.9, 2, 3.9, 4, 100)] == [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    assert best_level(Image(fine), "YX", 4) == 0


def test_pixel_sizes() -> None:
    stack = np.zeros((4, 5, 6), np.uint8)
    image = Image(stack, scale=(2, 0.5, 0.25), units=("um",) * 3)
    assert pixel_size(image, "ZYX", (1, 1, 1)).spacing == pytest.approx((2, 0.5, 0.25))
    assert pixel_size(image, "TYX", (1, 2, 2)).spacing == pytest.approx((1, 0.5))
    assert pixel_size(image, "ZYX", (1, 1, 1)).unit == "µm"
    scan = Image(stack, scale=(1, 0.9, 0.9), units=("mm",) * 3)
    assert (pixel_size(scan, "ZYX", (1, 1, 1)).spacing, pixel_size(scan, "ZYX", (1, 1, 1)).unit) == (
        pytest.approx((1, 0.9, 0.9)),
        "mm",
    )
    nanometres = Image(stack[0], scale=(65, 65), units=("nm", "nm"))
    assert pixel_size(nanometres, "YX", (1, 1)).spacing == pytest.approx((0.065, 0.065))
    assert pixel_size(Image(stack), "ZYX", (1, 1, 1)).spacing is None
