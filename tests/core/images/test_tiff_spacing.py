"""Pixel sizes in TIFF files."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from xlstm_unet.images import read_image

PLANE = np.zeros((6, 8), np.uint8)
STACK = np.zeros((3, 6, 8), np.uint8)


@pytest.mark.parametrize(
    ("size", "unit", "spacing", "read"),
    [
        (0.25, "µm", 0.25, "µm"),
        (250.0, "nm", 0.25, "µm"),
        (2500.0, "Å", 0.25, "µm"),
        (0.5, "mm", 0.5, "mm"),
        (0.05, "cm", 0.5, "mm"),
        (0.0005, "m", 0.5, "mm"),
    ],
)
def test_ome_units(tmp_path, size, unit, spacing, read):
    metadata = {"axes": "YX"}
    for axis in "XY":
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata=metadata)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.spacing == pytest.approx((spacing, spacing))
    assert image.unit == read


def test_ome_order_and_mixed_units(tmp_path):
    metadata = {
        "axes": "ZYX",
        "PhysicalSizeX": 0.1,
        "PhysicalSizeY": 200.0,
        "PhysicalSizeYUnit": "nm",
        "PhysicalSizeZ": 1.5,
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata, photometric="minisblack")
    image = read_image(tmp_path / "a.ome.tif")
    assert image.spacing == pytest.approx((1.5, 0.2, 0.1))
    assert image.unit == "µm"


def test_ome_without_z_step_says_so(tmp_path):
    metadata = {"axes": "ZYX", "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.1}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, metadata=metadata, photometric="minisblack")
    image = read_image(tmp_path / "a.ome.tif")
    assert image.spacing == pytest.approx((0.1, 0.1, 0.1))
    assert "Z step not stated" in image.read_as


@pytest.mark.parametrize("unit", ["pixel", "reference frame", "furlong"])
def test_ome_sizes_that_are_no_lengths_are_left_out(tmp_path, unit):
    metadata = {"axes": "YX"}
    for axis in "XY":
        metadata |= {f"PhysicalSize{axis}": 2.0, f"PhysicalSize{axis}Unit": unit}
    tifffile.imwrite(tmp_path / "a.ome.tif", PLANE, metadata=metadata)
    image = read_image(tmp_path / "a.ome.tif")
    assert image.spacing is None
    assert image.unit == "pixel"


@pytest.mark.parametrize("unit", ["um", "micron", "\\u00B5m"])
def test_imagej_units(tmp_path, unit):
    metadata = {"axes": "ZYX", "spacing": 2.0, "unit": unit}
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, resolution=(4.0, 5.0), metadata=metadata)
    image = read_image(tmp_path / "a.tif")
    assert image.spacing == pytest.approx((2.0, 0.2, 0.25))
    assert image.unit == "µm"


def test_imagej_without_unit(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "ZYX"})
    assert read_image(tmp_path / "a.tif").spacing is None


@pytest.mark.parametrize(
    ("resolution", "unit", "spacing"),
    [
        ((20000, 10000), "CENTIMETER", (1.0, 0.5)),
        ((25400, 25400), "INCH", (1.0, 1.0)),
        ((72, 72), "INCH", None),
        ((118, 118), "CENTIMETER", None),
        ((10, 10), "NONE", None),
    ],
)
def test_plain_resolution_tags(tmp_path, resolution, unit, spacing):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=resolution, resolutionunit=unit, metadata=None)
    image = read_image(tmp_path / "a.tif")
    if spacing is None:
        assert image.spacing is None
        assert image.unit == "pixel"
    else:
        assert image.spacing == pytest.approx(spacing)
        assert image.unit == "µm"


def test_print_resolution_is_said_to_be_ignored(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, resolution=(300, 300), resolutionunit="INCH", metadata=None)
    assert "300 dpi" in read_image(tmp_path / "a.tif").read_as
