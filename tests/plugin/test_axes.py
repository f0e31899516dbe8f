"""Axes are read as people mean them, and every other reading can be chosen."""

from __future__ import annotations

import pytest

from napari_xlstm_unet.axes import axes_choices, describe_axes, read_axes


@pytest.mark.parametrize(
    ("shape", "rgb", "labels", "axes"),
    [
        ((64, 80), False, ("-2", "-1"), "YX"),
        ((64, 80, 3), True, ("-2", "-1"), "YXC"),
        ((30, 64, 80), False, (), "ZYX"),
        ((3, 64, 80), False, (), "CYX"),
        ((1, 64, 80), False, (), "ZYX"),
        ((10, 30, 64, 80), False, (), "TZYX"),
        ((30, 2, 64, 80), False, (), "ZCYX"),
        ((2, 30, 64, 80), False, (), "CZYX"),
        ((5, 3, 30, 64, 80), False, (), "TCZYX"),
        ((5, 30, 64, 80, 3), True, (), "TZYXC"),
        ((30, 64, 80), False, ("time", "y", "x"), "TYX"),
        ((30, 64, 80), False, ("x", "y", "z"), "XYZ"),
        ((30, 64, 80), False, ("q", "y", "x"), "ZYX"),
        ((4, 64, 80), False, ("Z", "Y", "X"), "ZYX"),
    ],
    ids=str,
)
def test_reading(shape: tuple[int, ...], rgb: bool, labels: tuple[str, ...], axes: str) -> None:
    assert read_axes(shape, rgb=rgb, labels=labels) == axes


@pytest.mark.parametrize(("shape", "rgb"), [((5,), False), ((2,) * 6, False), ((4, 3), True)], ids=str)
def test_impossible_shapes_are_refused(shape: tuple[int, ...], rgb: bool) -> None:
    with pytest.raises(ValueError, match="axes, expected"):
        read_axes(shape, rgb=rgb)


def test_choices() -> None:
    assert axes_choices(2) == ("YX",)
    assert axes_choices(3) == ("ZYX", "TYX", "CYX", "YXC")
    assert len(axes_choices(4)) == len(axes_choices(5)) == 6
    assert axes_choices(3, rgb=True) == ("YXC",)
    assert axes_choices(4, rgb=True) == ("TYXC", "ZYXC")
    assert axes_choices(5, rgb=True) == ("TZYXC", "ZTYXC")


@pytest.mark.parametrize(
    ("axes", "shape", "text"),
    [
        ("YX", (64, 80), "64 × 80 pixels"),
        ("YXC", (64, 80, 3), "64 × 80 pixels, colour"),
        ("TZYX", (1, 30, 64, 80), "1 frame × 30 slices of 64 × 80 pixels"),
        ("CYX", (2, 64, 80), "2 channels of 64 × 80 pixels"),
    ],
)
def test_in_words(axes: str, shape: tuple[int, ...], text: str) -> None:
    assert describe_axes(axes, shape) == text
