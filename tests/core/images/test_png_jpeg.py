"""PNG and JPEG files of every common kind, whole and damaged."""

from __future__ import annotations

import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from PIL import Image as Pillow

from xlstm_unet.errors import ImageError
from xlstm_unet.images import read_image

GRAY = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
COLOUR = np.stack([GRAY, GRAY[::-1], 255 - GRAY], axis=-1)


def png(path, array):
    path.write_bytes(imagecodecs.png_encode(array))
    return path


@pytest.mark.parametrize(
    ("array", "axes", "said"),
    [
        (GRAY, "YX", "8-bit PNG, gray"),
        (GRAY.astype(np.uint16) * 257, "YX", "16-bit PNG, gray"),
        (COLOUR, "CYX", "8-bit PNG, colour"),
        (COLOUR.astype(np.uint16) * 200, "CYX", "16-bit PNG, colour"),
    ],
    ids=["gray8", "gray16", "rgb8", "rgb16"],
)
def test_png_values_are_exact(tmp_path, array, axes, said):
    image = read_image(png(tmp_path / "a.png", array))
    expected = array if array.ndim == 2 else np.moveaxis(array, -1, 0)
    assert image.axes == axes
    assert image.array.dtype == array.dtype
    assert (image.array == expected).all()
    assert said in image.read_as
    assert image.name == "a"
    assert image.spacing is None
    assert image.unit == "pixel"


@pytest.mark.parametrize(("mode", "axes"), [("LA", "YX"), ("RGBA", "CYX")])
def test_alpha_is_dropped_and_said_so(tmp_path, mode, axes):
    Pillow.fromarray(COLOUR).convert(mode).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.axes == axes
    assert "alpha dropped" in image.read_as


def test_palettes_are_looked_up(tmp_path):
    picture = Pillow.fromarray(COLOUR).quantize(16)
    picture.save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert (image.array == np.moveaxis(np.asarray(picture.convert("RGB")), -1, 0)).all()
    assert "palette" in image.read_as


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_keep_their_values(tmp_path, bits):
    values = GRAY % 2**bits
    Pillow.fromarray(values).save(tmp_path / "a.png", bits=bits)
    image = read_image(tmp_path / "a.png")
    assert (image.array == values).all()
    assert f"{bits}-bit" in image.read_as


def test_the_contents_decide_not_the_ending(tmp_path):
    image = read_image(png(tmp_path / "misnamed.jpg", GRAY))
    assert (image.array == GRAY).all()


def test_axes_may_be_told(tmp_path):
    path = png(tmp_path / "a.png", COLOUR)
    assert read_image(path, "yxz").axes == "ZYX"
    with pytest.raises(ImageError, match="expected 3 letters"):
        read_image(path, "YX")


def test_gray_and_colour_jpeg(tmp_path):
    for name, array, shape in (("g.jpg", GRAY, (6, 8)), ("c.jpeg", COLOUR, (3, 6, 8))):
        Pillow.fromarray(array).save(tmp_path / name, quality=95)
        image = read_image(tmp_path / name)
        assert image.array.shape == shape
        assert (
            np.abs(image.array.astype(int) - np.moveaxis(array, -1, 0 if array.ndim == 3 else -1)).mean() < 40
        )


@pytest.mark.parametrize(
    ("orientation", "turn"), [(3, lambda a: a[::-1, ::-1]), (6, lambda a: np.rot90(a, -1)), (8, np.rot90)]
)
def test_exif_orientation_is_applied_and_said(tmp_path, orientation, turn):
    array = np.zeros((16, 32), np.uint8)
    array[:8, :8] = 255
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    Pillow.fromarray(array).save(tmp_path / "a.jpg", exif=exif)
    image = read_image(tmp_path / "a.jpg")
    assert np.abs(image.array.astype(int) - turn(array)).max() < 10
    assert f"orientation {orientation}" in image.read_as


def test_cmyk_jpeg_is_refused(tmp_path):
    Pillow.fromarray(COLOUR).convert("CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ImageError, match="colour mode is CMYK, expected gray or RGB"):
        read_image(tmp_path / "a.jpg")


def png_header(width, height, depth=8, colour=0):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (png_header(200_000, 200_000), "200000 x 200000 x 1 values takes 37.3 GiB"),
        (png_header(20_000, 20_000), "promises 20000 x 20000 pixels, which 33 bytes cannot hold"),
        (png_header(0, 5), "header is damaged"),
        (png_header(5, 5, depth=7), "7 bits"),
        (png_header(5, 5)[:20], "cut off after 20 bytes"),
        (png_header(5, 5), "damaged or cut off"),
    ],
    ids=["huge", "bomb", "zero", "depth", "cut-header", "no-pixels"],
)
def test_false_png_headers_are_refused(tmp_path, data, message):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / "a.png")
    assert "a.png" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_cut_file_gives_an_error_or_all_its_pixels(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    whole = tmp_path / f"whole.{suffix}"
    Pillow.fromarray(noise).save(whole)
    data, expected = whole.read_bytes(), read_image(whole).array
    cut = tmp_path / f"cut.{suffix}"
    refused = 0
    for length in range(0, len(data) - 20, 37):
        cut.write_bytes(data[:length])
        with pytest.raises(ImageError):
            read_image(cut)
        refused += 1
    assert refused > 20
    assert (read_image(whole).array == expected).all()
