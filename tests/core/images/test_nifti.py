"""NIfTI files: order of axes, affine, scaling, writing back, and damage."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, read_image, read_labels, write_labels

VOXELS = np.arange(3 * 4 * 5, dtype=np.int16).reshape(3, 4, 5)
AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.6, 0.1, -20], [0, -0.1, 2.0, 30], [0, 0, 0, 1.0]])


def save(path, array, affine=AFFINE, unit="mm"):
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units(unit)
    nib.save(image, path)
    return path


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_array_is_reversed_and_the_affine_still_finds_each_voxel(tmp_path, suffix):
    image = read_image(save(tmp_path / f"a.{suffix}", VOXELS))
    assert image.axes == "ZYX"
    assert image.name == "a"
    assert image.unit == "mm"
    assert image.spacing == pytest.approx(np.sqrt((AFFINE[:3, :3] ** 2).sum(axis=0))[::-1])
    for x, y, z in np.ndindex(VOXELS.shape):
        assert image.array[z, y, x] == VOXELS[x, y, z]
    assert image.affine @ (2, 3, 4, 1) == pytest.approx(AFFINE @ (2, 3, 4, 1))


@pytest.mark.parametrize(
    ("unit", "spacing", "read"), [("micron", 0.5, "µm"), ("meter", 500.0, "mm"), ("unknown", 0.5, "mm")]
)
def test_units(tmp_path, unit, spacing, read):
    image = read_image(save(tmp_path / "a.nii", VOXELS, np.diag([0.5, 0.5, 0.5, 1.0]), unit))
    assert image.spacing == pytest.approx((spacing,) * 3)
    assert image.unit == read
    assert (image.affine @ (1, 0, 0, 1))[0] == pytest.approx(spacing)
    assert ("unit not stated" in image.read_as) == (unit == "unknown")


def test_scaling_is_applied(tmp_path):
    file = nib.Nifti1Image(VOXELS, AFFINE)
    file.header.set_slope_inter(0.5, -3)
    nib.save(file, tmp_path / "a.nii")
    scaled = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj)
    image = read_image(tmp_path / "a.nii")
    assert image.array.dtype == np.float32
    assert image.array.transpose() == pytest.approx(scaled)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((3, 4), "YX"),
        ((3, 4, 1), "ZYX"),
        ((3, 4, 5, 1), "ZYX"),
        ((3, 4, 5, 1, 2), "CZYX"),
    ],
)
def test_other_numbers_of_axes(tmp_path, shape, axes):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    image = read_image(save(tmp_path / "a.nii", array))
    assert image.axes == axes
    assert sorted(image.array.ravel()) == sorted(array.ravel())
    assert image.array.flat[-1] == array.flat[-1]


def test_a_fourth_axis_has_to_be_told(tmp_path):
    array = np.arange(3 * 4 * 5 * 2, dtype=np.float32).reshape(3, 4, 5, 2)
    path = save(tmp_path / "a.nii", array)
    image = read_image(path, "CZYX")
    assert image.array[1, 4, 3, 2] == array[2, 3, 4, 1]
    assert image.spacing is not None
    with pytest.raises(ImageError, match=r"4 axes \(3, 4, 5, 2\), expected one volume") as caught:
        read_image(path)
    assert "TZYX" in caught.value.hint
    series = read_image(path, "TZYX")
    assert (series.frames, series.spatial_shape) == (2, (5, 4, 3))
    write_labels(tmp_path / "l.nii.gz", np.ones(series.label_shape, int), series)
    assert read_labels(tmp_path / "l.nii.gz").shape == (2, 5, 4, 3)


def test_rgb_voxels_become_channels(tmp_path):
    array = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    array["G"] = VOXELS
    image = read_image(save(tmp_path / "a.nii", array))
    assert image.axes == "CZYX"
    assert (image.array[1] == VOXELS.transpose()).all()


@pytest.mark.parametrize(
    "affine",
    [
        np.full((4, 4), np.nan),
        np.zeros((4, 4)),
        np.array([[1, 2, 3, 0], [2, 4, 6, 0], [0, 0, 1, 0]]),
        np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 1e-6, 0]]),
    ],
    ids=["nan", "zero", "singular", "flat"],
)
def test_senseless_geometry_is_refused(tmp_path, affine):
    file = nib.Nifti1Image(VOXELS, None)
    file.header["sform_code"] = 1
    for row, values in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        file.header[row] = values
    header = file.header.binaryblock
    (tmp_path / "a.nii").write_bytes(header + b"\0" * 4 + VOXELS.tobytes(order="F"))
    with pytest.raises(ImageError, match="directions in the header make no sense") as caught:
        read_image(tmp_path / "a.nii")
    assert "header" in caught.value.hint


def with_codes(path, qform, size):
    header = nib.Nifti1Image(VOXELS, AFFINE).header.copy()
    header["sform_code"], header["qform_code"] = 0, qform
    header["pixdim"][1:4] = size
    path.write_bytes(header.binaryblock + b"\0" * 4 + VOXELS.tobytes(order="F"))
    return path


@pytest.mark.parametrize("size", [(1, 0, 1), (1, 1, np.nan)])
def test_zero_spacing_is_refused(tmp_path, size, caplog):
    with pytest.raises(ImageError, match=r"voxel size in the header is 1 x|damaged"):
        read_image(with_codes(tmp_path / "a.nii", 1, size))


def test_no_orientation_is_made_up(tmp_path):
    image = read_image(with_codes(tmp_path / "a.nii", 0, (1, 2, 3)))
    assert image.affine is None
    assert image.spacing == (3.0, 2.0, 1.0)
    assert "orientation not stated" in image.read_as
    write_labels(tmp_path / "l.nii", np.ones(image.label_shape, int), image)
    written = nib.load(tmp_path / "l.nii")
    assert (int(written.header["sform_code"]), int(written.header["qform_code"])) == (0, 0)
    assert written.header["pixdim"][1:4] == pytest.approx([1, 2, 3])


def test_complex_and_nan_voxels_are_refused(tmp_path):
    with pytest.raises(ImageError, match="complex"):
        read_image(save(tmp_path / "a.nii", VOXELS.astype(np.complex64)))
    with pytest.raises(ImageError, match="1 NaN values among 60"):
        read_image(save(tmp_path / "b.nii", np.where(VOXELS == 7, np.nan, VOXELS).astype(np.float32)))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_labels_go_back_onto_the_grid_of_the_file(tmp_path, kind):
    file = kind(VOXELS, AFFINE)
    file.header.set_xyzt_units("mm", "sec")
    file.header["descrip"] = b"scanner"
    file.header.set_slope_inter(2.0, 1.0)
    file.set_qform(AFFINE, code=1)
    nib.save(file, tmp_path / "a.nii.gz")
    image = read_image(tmp_path / "a.nii.gz")
    labels = np.zeros(image.label_shape, np.int32)
    labels[4, 3, 2] = 70_000
    write_labels(tmp_path / "l.nii.gz", labels, image)
    written = nib.load(tmp_path / "l.nii.gz")
    assert isinstance(written, kind)
    assert written.get_data_dtype() == np.int32
    assert written.shape == VOXELS.shape
    assert np.asanyarray(written.dataobj)[2, 3, 4] == 70_000
    assert written.affine == pytest.approx(AFFINE)
    assert written.header["descrip"].item() == b"scanner"
    assert int(written.header["qform_code"]) == 1
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert (read_labels(tmp_path / "l.nii.gz") == labels).all()


def test_labels_of_an_image_without_affine_carry_its_spacing(tmp_path):
    image = Image(np.zeros((4, 5, 6)), "ZYX", spacing=(3.0, 0.5, 0.4), unit="µm")
    write_labels(tmp_path / "l.nii", np.ones((4, 5, 6), int), image)
    again = read_image(tmp_path / "l.nii")
    assert again.spacing == pytest.approx(image.spacing)
    assert again.unit == "µm"
    plane = Image(np.zeros((5, 6)), "YX", spacing=(0.5, 0.4), unit="mm")
    write_labels(tmp_path / "p.nii.gz", np.ones((5, 6), int), plane)
    assert read_image(tmp_path / "p.nii.gz").spacing == pytest.approx((0.5, 0.4))


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_cut_file_gives_an_error(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 9999, (12, 13, 14), dtype=np.int16)
    data = save(tmp_path / f"a.{suffix}", noise).read_bytes()
    for length in [0, 1, 2, 3, 5, 10, 300, 347, 351, *range(352, len(data) - 8, len(data) // 15)]:
        (tmp_path / f"cut.{suffix}").write_bytes(data[:length])
        with pytest.raises(ImageError, match="cut") as caught:
            read_image(tmp_path / f"cut.{suffix}")
        assert caught.value.hint


def test_a_header_that_promises_too_much_is_refused(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((30000, 30000, 100))
    header["magic"] = b"n+1"
    header["vox_offset"] = 352
    for name, pack in (("a.nii", bytes), ("a.nii.gz", gzip.compress)):
        (tmp_path / name).write_bytes(pack(header.binaryblock + b"\0" * 100))
        with pytest.raises(ImageError, match="30000 x 30000 x 100 values takes 670"):
            read_image(tmp_path / name)


def test_a_real_scan(data):
    image = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    labels = read_labels(data / "hippocampus" / "labels" / "hippocampus_125.nii.gz")
    assert image.spacing == (1.0, 1.0, 1.0)
    assert image.unit == "mm"
    assert labels.shape == image.label_shape
    assert set(np.unique(labels)) == {0, 1, 2}
    centre = {label: image.affine @ (*np.argwhere(labels == label).mean(axis=0)[::-1], 1) for label in (1, 2)}
    assert centre[1][1] > centre[2][1]  # anterior lies before posterior: RAS, y grows forwards
