"""Finding and opening files: what is no image file, and what a folder holds."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

from xlstm_unet.errors import ImageError
from xlstm_unet.images import image_stem, image_suffix, list_images, read_image, read_labels


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("a.png", "a", ".png"),
        ("a.b.TIF", "a.b", ".tif"),
        ("a.ome.tiff", "a", ".ome.tiff"),
        ("brain.nii.gz", "brain", ".nii.gz"),
        ("a.txt", "a", None),
        ("a.gz", "a", None),
        ("a", "a", None),
    ],
)
def test_stem_and_suffix(name, stem, suffix):
    assert image_stem(name) == stem
    assert image_suffix(name) == suffix


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("gone.png", None, "no such file", "Check the name"),
        ("a.txt", b"hello", "ending in '.txt' are not read", ".nii.gz"),
        ("a", b"hello", "ending in 'nothing' are not read", ".png"),
        ("a.png", b"", r"empty \(0 bytes\)", "again"),
        ("a.tif", b"<html>sign in</html>", "not a PNG, JPEG, TIFF, NIfTI or NRRD image", "misnamed"),
        ("a.nii.gz", b"\x1f\x8b\x08\x00garbage", "not a PNG, JPEG, TIFF, NIfTI or NRRD image", "misnamed"),
        ("a.jpg", b"\xff\xd8\xff", "JPEG file of 3 bytes is damaged", "again"),
        ("a.tif", b"II*\x00\x08\x00\x00\x00", "damaged|no image", "again"),
    ],
)
def test_what_is_no_image_is_refused_by_name(tmp_path, name, content, message, hint):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=message) as caught:
        read_image(tmp_path / name)
    assert name in caught.value.message
    assert hint in caught.value.hint


def test_folders_and_pipes_without_an_image(tmp_path):
    with pytest.raises(ImageError, match="no DICOM image among 0 files"):
        read_image(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "a.png")
        with pytest.raises(ImageError, match="not a regular file"):
            read_image(tmp_path / "a.png")


def test_the_limit_can_be_given(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((100, 100), np.uint16))
    with pytest.raises(ImageError, match="100 x 100 values"):
        read_image(tmp_path / "a.tif", limit=19_999)
    assert read_image(tmp_path / "a.tif", limit=20_000).spatial_shape == (100, 100)


def test_a_folder_lists_its_images_in_order(tmp_path):
    for name in ("b.png", "a.tif", "c.nii.gz", ".hidden.png", "a_labels.tif", "notes.txt", "c_labels.nii.gz"):
        (tmp_path / name).touch()
    (tmp_path / "inner.png").mkdir()
    names = [path.name for path in list_images(tmp_path)]
    assert names == ["a.tif", "b.png", "c.nii.gz"]
    named = list_images([tmp_path / "a_labels.tif", tmp_path, str(tmp_path / "b.png")])
    assert [path.name for path in named] == ["a_labels.tif", *names]


@pytest.mark.parametrize(
    ("names", "message"),
    [((), "no image among 0 entries"), (("a.txt", "x_labels.tif"), "no image among 2 entries")],
)
def test_a_folder_without_images_is_an_error(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(ImageError, match=message) as caught:
        list_images(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert ".png" in caught.value.hint


def test_missing_paths_and_nothing_at_all(tmp_path):
    with pytest.raises(ImageError, match="no such file or folder"):
        list_images([tmp_path / "gone"])
    with pytest.raises(ImageError, match="No image was named"):
        list_images([])


def test_every_real_image_reads(data):
    images = sorted(data.glob("*/images/*"))
    assert len(images) == 10
    shapes = {path.name: read_image(path).axes for path in images}
    assert shapes["hist_pink_he.png"] == "CYX"
    assert shapes["fluo_small.png"] == "YX"
    assert shapes["hippocampus_125.nii.gz"] == "ZYX"


def test_every_real_image_has_labels_and_a_licence(data):
    licences = (data / "LICENSES.md").read_text(encoding="utf-8")
    for path in data.glob("*/images/*"):
        assert f"`{path.parents[1].name}/{path.name}`" in licences
        labels = read_labels(path.parents[1] / "labels" / path.name)
        assert labels.shape == read_image(path).label_shape
        assert labels.max() > 0


@pytest.mark.parametrize("module", ["images", "measure"])
def test_torch_is_never_imported(module, data):
    code = (
        f"import sys, xlstm_unet.{module}\nfrom xlstm_unet.images import read_image, resample\n"
        f"resample(read_image({str(data / 'nuclei/images/fluo_small.png')!r}).array, (0.5, 0.5))\n"
        "assert 'torch' not in sys.modules and 'xlstm_kernels' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_importing_stays_light():
    code = (
        "import sys, xlstm_unet.images, xlstm_unet.measure\n"
        "heavy = {'torch', 'scipy', 'tifffile', 'nibabel', 'imagecodecs', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
