"""Label files: written whole with their pixel size, read back exactly, pictures refused."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from xlstm_unet.errors import ImageError, OutputError
from xlstm_unet.images import Image, as_image, read_image, read_labels, write_labels

LABELS = (np.arange(48, dtype=np.int32).reshape(6, 8) // 5) * 1000


@pytest.mark.parametrize("suffix", ["tif", "tiff", "ome.tif", "nii", "nii.gz", "png"])
def test_labels_come_back_as_they_went(tmp_path, suffix):
    write_labels(tmp_path / f"l.{suffix}", LABELS, as_image(np.zeros((6, 8))))
    labels = read_labels(tmp_path / f"l.{suffix}")
    assert labels.dtype == np.int32
    assert (labels == LABELS).all()
    assert [path.name for path in tmp_path.iterdir()] == [f"l.{suffix}"]


@pytest.mark.parametrize(
    ("axes", "spacing", "unit"),
    [
        ("YX", (0.25, 0.5), "µm"),
        ("ZYX", (2.0, 0.25, 0.25), "µm"),
        ("TYX", (0.3, 0.3), "µm"),
        ("TZYX", (6.5, 0.86, 0.86), "mm"),
        ("YX", None, "pixel"),
    ],
)
def test_tiff_keeps_axes_and_pixel_size(tmp_path, axes, spacing, unit):
    shape = (2, 3, 6, 8)[4 - len(axes) :]
    image = Image(np.zeros(shape), axes, spacing=spacing, unit=unit)
    write_labels(tmp_path / "l.tif", np.arange(np.prod(shape)).reshape(shape), image)
    again = read_image(tmp_path / "l.tif")
    assert again.axes == axes
    assert again.unit == unit
    assert again.spacing == (None if spacing is None else pytest.approx(spacing))
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        page = file.pages.first
        assert page.dtype == np.int32
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        if spacing is not None:
            per_centimetre = {"µm": 1e4, "mm": 10.0}[unit]
            assert page.resolution == pytest.approx(
                (per_centimetre / spacing[-1], per_centimetre / spacing[-2]), rel=1e-5
            )


def test_labels_of_a_colour_image_have_no_channel_axis(tmp_path, data):
    image = read_image(data / "nuclei/images/hist_pink_he.png")
    labels = read_labels(data / "nuclei/labels/hist_pink_he.png")
    assert labels.max() == 14
    write_labels(tmp_path / "l.tif", labels, image)
    assert (read_labels(tmp_path / "l.tif") == labels).all()


def test_big_files_get_64_bit_offsets(tmp_path, monkeypatch):
    monkeypatch.setattr("xlstm_unet.images.labels._BIG_TIFF", 100)
    write_labels(tmp_path / "l.tif", LABELS, as_image(np.zeros((6, 8))))
    with tifffile.TiffFile(tmp_path / "l.tif") as file:
        assert file.is_bigtiff
    assert (read_labels(tmp_path / "l.tif") == LABELS).all()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    image = as_image(np.zeros((6, 8)))
    write_labels(tmp_path / "l.tif", LABELS, image)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tifffile, "imwrite", full)
    with pytest.raises(OutputError, match="No space left"):
        write_labels(tmp_path / "l.tif", LABELS + 1, image)
    monkeypatch.undo()
    assert (read_labels(tmp_path / "l.tif") == LABELS).all()
    assert [path.name for path in tmp_path.iterdir()] == ["l.tif"]


@pytest.mark.parametrize(
    ("name", "labels", "error", "message"),
    [
        ("l.jpg", LABELS, OutputError, "ending in '.jpg'"),
        ("l.png", LABELS * 10, OutputError, "PNG cannot hold labels .* up to 90000"),
        ("l.tif", LABELS[:3], ImageError, r"shape \(3, 8\), expected \(6, 8\)"),
        ("l.tif", LABELS - 1, ImageError, "from -1"),
        ("l.tif", LABELS + 0.5, ImageError, "dtype float64"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, labels, error, message):
    with pytest.raises(error, match=message):
        write_labels(tmp_path / name, labels, as_image(np.zeros((6, 8))))
    assert not list(tmp_path.iterdir())


def test_pictures_are_not_labels(tmp_path):
    colour = np.stack([LABELS % 251] * 3, axis=-1).astype(np.uint8)
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(colour))
    Pillow.fromarray(colour).quantize(8).save(tmp_path / "p.png")
    Pillow.fromarray(colour).save(tmp_path / "j.jpg")
    tifffile.imwrite(tmp_path / "c.tif", colour, photometric="rgb")
    for name, message in (
        ("c.png", "colour PNG"),
        ("p.png", "palette PNG"),
        ("j.jpg", "JPEG changes values"),
        ("c.tif", "colour picture"),
    ):
        with pytest.raises(ImageError, match=message) as caught:
            read_labels(tmp_path / name)
        assert "TIFF" in caught.value.hint


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0.5, 1]], np.float32), "not whole numbers"),
        (np.array([[-1, 1]], np.int16), "from -1 to 1"),
        (np.array([[0, 2**32 - 1]], np.uint32), "4294967295"),
    ],
)
def test_numbers_that_are_no_labels_are_refused(tmp_path, array, message):
    tifffile.imwrite(tmp_path / "l.tif", array)
    with pytest.raises(ImageError, match=message):
        read_labels(tmp_path / "l.tif")


def test_masks_and_whole_floats_are_labels(tmp_path):
    Pillow.fromarray(LABELS > 3000).save(tmp_path / "m.png")
    assert set(np.unique(read_labels(tmp_path / "m.png"))) == {0, 1}
    tifffile.imwrite(tmp_path / "f.tif", LABELS.astype(np.float32))
    assert (read_labels(tmp_path / "f.tif") == LABELS).all()
    with pytest.raises(ImageError, match="no such file"):
        read_labels(tmp_path / "gone.png")
