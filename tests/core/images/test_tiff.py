"""TIFF, OME-TIFF and ImageJ TIFF: axes, values, what is undone, and damaged files."""

from __future__ import annotations

import contextlib
import struct

import numpy as np
import pytest
import tifffile

from xlstm_unet.errors import ImageError
from xlstm_unet.images import read_image

GENERATOR = np.random.default_rng(0)
STACK = GENERATOR.integers(0, 4000, (5, 12, 14), dtype=np.uint16)


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.int16, np.int32, np.float16, np.float32, np.float64]
)
def test_values_are_exact(tmp_path, dtype):
    array = (GENERATOR.random((9, 11)) * 100).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", array)
    image = read_image(tmp_path / "a.tif")
    assert image.array.dtype == dtype
    assert (image.array == array).all()
    assert image.axes == "YX"


@pytest.mark.parametrize(
    ("axes", "shape", "ordered"),
    [
        ("ZYX", (5, 12, 14), "ZYX"),
        ("CYX", (2, 12, 14), "CYX"),
        ("TCYX", (3, 2, 12, 14), "TCYX"),
        ("ZCYX", (3, 2, 12, 14), "CZYX"),
        ("TZCYX", (2, 3, 2, 12, 14), "TCZYX"),
    ],
)
@pytest.mark.parametrize("kind", ["ome", "imagej"])
def test_named_axes_are_read(tmp_path, kind, axes, shape, ordered):
    array = GENERATOR.integers(0, 255, shape, dtype=np.uint16)
    path = tmp_path / f"a.{kind}.tif"
    kwargs = {"imagej": True} if kind == "imagej" else {"ome": True, "photometric": "minisblack"}
    tifffile.imwrite(path, array, metadata={"axes": axes}, **kwargs)
    image = read_image(path)
    assert image.axes == ordered
    assert (image.array == array.transpose([axes.index(axis) for axis in ordered])).all()
    assert ("OME" if kind == "ome" else "ImageJ") in image.read_as


def test_unnamed_pages_are_read_as_z_and_said_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, metadata=None, photometric="minisblack")
    image = read_image(tmp_path / "a.tif")
    assert image.axes == "ZYX"
    assert "pages read as Z" in image.read_as
    assert read_image(tmp_path / "a.tif", "TYX").axes == "TYX"


def test_axes_that_cannot_be_told_are_asked_for(tmp_path):
    array = np.zeros((2, 3, 12, 14), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="minisblack")
    with pytest.raises(ImageError, match="several ways") as caught:
        read_image(tmp_path / "a.tif")
    assert "Pass axes" in caught.value.hint
    assert read_image(tmp_path / "a.tif", "CZYX").array.shape == array.shape


def test_colour_alpha_and_planes(tmp_path):
    colour = GENERATOR.integers(0, 255, (12, 14, 4), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb", extrasamples=["unassalpha"])
    image = read_image(tmp_path / "a.tif")
    assert (image.array == np.moveaxis(colour[..., :3], -1, 0)).all()
    assert "alpha dropped" in image.read_as
    tifffile.imwrite(
        tmp_path / "b.tif", np.moveaxis(colour, -1, 0)[:3], photometric="rgb", planarconfig="separate"
    )
    assert (read_image(tmp_path / "b.tif").array == image.array).all()


def test_palette_single_bit_and_white_is_zero(tmp_path):
    index = GENERATOR.integers(0, 255, (12, 14), dtype=np.uint8)
    colours = GENERATOR.integers(0, 255, (3, 256), dtype=np.uint16) * 257
    tifffile.imwrite(tmp_path / "p.tif", index, photometric="palette", colormap=colours)
    assert (read_image(tmp_path / "p.tif").array == (colours >> 8)[:, index]).all()
    tifffile.imwrite(tmp_path / "b.tif", index > 100)
    assert (read_image(tmp_path / "b.tif").array == (index > 100)).all()
    tifffile.imwrite(tmp_path / "w.tif", index, photometric="miniswhite")
    image = read_image(tmp_path / "w.tif")
    assert (image.array == index).all()
    assert "0 as white" in image.read_as


def test_cmyk_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((12, 14, 4), np.uint8), photometric="separated")
    with pytest.raises(ImageError, match="SEPARATED"):
        read_image(tmp_path / "a.tif")


def test_a_pyramid_gives_its_full_size(tmp_path):
    array = GENERATOR.integers(0, 255, (64, 64), dtype=np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        file.write(array, subifds=1, tile=(16, 16))
        file.write(array[::2, ::2], subfiletype=1, tile=(16, 16))
    assert (read_image(tmp_path / "a.ome.tif").array == array).all()


def test_the_first_of_several_images_is_read_and_said_so(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(np.zeros((12, 14), np.uint8))
        file.write(np.ones((7, 9), np.uint16))
    image = read_image(tmp_path / "a.tif")
    assert image.spatial_shape == (12, 14)
    assert "first of 2 images" in image.read_as


@pytest.mark.parametrize(
    "kwargs",
    [
        {"metadata": None},
        {"compression": "zlib"},
        {"compression": "lzw", "metadata": None},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}, "tile": (16, 16), "compression": "zlib"},
        {"bigtiff": True, "metadata": None},
    ],
    ids=["plain", "zlib", "lzw", "imagej", "ome", "ome-tiled", "big"],
)
def test_a_cut_file_gives_an_error_or_all_its_pixels(tmp_path, kwargs):
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    photometric = {} if "imagej" in kwargs else {"photometric": "minisblack"}
    tifffile.imwrite(whole, STACK, **photometric, **kwargs)
    data = whole.read_bytes()
    assert (read_image(whole).array == STACK).all()
    refused = []
    for length in [*range(40), *range(40, len(data), len(data) // 40)]:
        cut.write_bytes(data[:length])
        try:
            image = read_image(cut)
        except ImageError as error:
            refused.append(error)
        else:
            assert image.array.shape == STACK.shape
            assert (image.array == STACK).all()
    assert len(refused) > 60
    assert all("cut.tif" in error.message and error.hint for error in refused)


@pytest.mark.parametrize(
    "kwargs", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=["raw", "zlib", "tiles"]
)
@pytest.mark.parametrize(("rows", "message"), [(100, "promises|cut off"), (4_000_000_000, "238.4 GiB")])
def test_false_sizes_are_refused(tmp_path, kwargs, rows, message):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ones((64, 64), np.uint8), **kwargs)
    with tifffile.TiffFile(path) as file:
        place = file.pages.first.tags["ImageLength"].valueoffset
    data = bytearray(path.read_bytes())
    data[place : place + 4] = struct.pack("<I", rows)
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message):
        read_image(path)


def test_a_page_chain_that_bites_its_tail_ends(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, STACK[0], metadata=None)
    data = bytearray(path.read_bytes())
    first = struct.unpack("<I", data[4:8])[0]
    tags = struct.unpack("<H", data[first : first + 2])[0]
    data[first + 2 + 12 * tags : first + 6 + 12 * tags] = struct.pack("<I", first)
    path.write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        read_image(path)


def test_pages_in_a_missing_file_are_not_made_up(tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    xml = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:a">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        'SizeX="14" SizeY="12" SizeZ="2" SizeC="1" SizeT="1">'
        '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>'
        '<TiffData FirstZ="0" IFD="0"><UUID FileName="a.ome.tif">urn:uuid:a</UUID></TiffData>'
        '<TiffData FirstZ="1" IFD="0"><UUID FileName="gone.ome.tif">urn:uuid:b</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(folder / "a.ome.tif", np.ones((12, 14), np.uint8), description=xml, metadata=None)
    with pytest.raises(ImageError, match="missing"):
        read_image(folder / "a.ome.tif")


def test_noise_in_a_header_never_escapes_as_another_error(tmp_path):
    whole, path = tmp_path / "whole.tif", tmp_path / "noisy.tif"
    tifffile.imwrite(whole, STACK, compression="zlib", photometric="minisblack")
    data = np.frombuffer(whole.read_bytes(), np.uint8)
    generator = np.random.default_rng(1)
    for _ in range(60):
        noisy = data.copy()
        noisy[generator.integers(4, 400, 3)] = generator.integers(0, 255, 3)
        path.write_bytes(noisy.tobytes())
        with contextlib.suppress(ImageError):
            assert read_image(path, limit=2**24).array.size
