"""DICOM series: geometry, order, values, and what is refused."""

from __future__ import annotations

import shutil
import zipfile

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, RLELossless
from scipy.spatial.transform import Rotation

from xlstm_unet.errors import ImageError
from xlstm_unet.images import list_images, oriented, read_image
from xlstm_unet.images.dicom_files import list_series

MR = "1.2.840.10008.5.1.4.1.1.4"
ROOT = "1.2.826.0.1.3680043.8.498."


@pytest.fixture(scope="module")
def volume(data):
    scan = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz").array
    return scan[:8, :20, :24].astype(np.int16)


def write_slice(path, pixels, affine, z, syntax=ExplicitVRLittleEndian, **fields):
    """Write plane z of a volume (Z, Y, X) with an affine to RAS."""
    lps = np.diag([-1.0, -1.0, 1.0]) @ affine[:3]
    sizes = np.linalg.norm(lps, axis=0)
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID, item.Modality = MR, f"{ROOT}1.{round(z)}", "MR"
    item.SeriesInstanceUID, item.SeriesNumber, item.SeriesDescription = f"{ROOT}2", 7, "T1"
    item.PatientID, item.FrameOfReferenceUID, item.InstanceNumber = "P", f"{ROOT}3", round(z) + 1
    item.ImageOrientationPatient = [*(lps[:, 0] / sizes[0]), *(lps[:, 1] / sizes[1])]
    item.ImagePositionPatient = list(lps @ (0, 0, z, 1))
    item.PixelSpacing = [sizes[1], sizes[0]]
    item.Rows, item.Columns = pixels.shape[:2]
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated, item.BitsStored, item.HighBit, item.PixelRepresentation = 16, 16, 15, 1
    item.PixelData = pixels.tobytes() if isinstance(pixels, np.ndarray) else pixels
    for name, value in fields.items():
        setattr(item, name, value)
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = UID(syntax)
    path.parent.mkdir(exist_ok=True, parents=True)
    with pydicom.config.disable_value_validation():
        item.save_as(path, enforce_file_format=True)


AFFINE = np.array([[-0.9, 0, 0.1, 5], [0, -0.8, 0, 6], [0.05, 0, 2.5, -40], [0, 0, 0, 1.0]])


def write_series(folder, volume, affine=AFFINE, **fields):
    for z, plane in enumerate(volume):
        write_slice(folder / f"{(z * 5) % len(volume):03d}.dcm", plane, affine, z, **fields)
    return folder


def test_real_series_of_a_zip(data):
    path = data / "brain_dicom.zip"
    assert [(s.number, s.description, len(s.files)) for s in list_series(path)] == [
        ("26401", "T1pre_reg", 22),
        ("37870", "T2_reg", 22),
    ]
    with pytest.raises(ImageError, match=r"2 series, expected one: 26401 'T1pre_reg'.*37870") as caught:
        read_image(path)
    assert "--series" in caught.value.hint
    with pytest.raises(ImageError, match="no series is called 'FLAIR'"):
        read_image(path, series="FLAIR")
    image = read_image(path, series="t1pre_reg")
    assert image.array.shape == (22, 64, 56)
    assert image.spacing == pytest.approx((6.5, 3.4375, 3.4375))
    assert image.name == "brain_dicom_T1pre-reg"
    assert image.array.tobytes() == read_image(path, series="26401").array.tobytes()


def test_every_slice_lies_where_its_file_says(data, tmp_path):
    zipfile.ZipFile(data / "brain_dicom.zip").extractall(tmp_path)
    folder = tmp_path / "PGBM-003" / "T2"
    image = read_image(folder)
    assert image.name == "T2"
    seen = set()
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        place = np.array([-1, -1, 1, 1]) * (*map(float, file.ImagePositionPatient), 1)
        x, y, z, _ = np.linalg.solve(image.affine, place)
        assert (x, y, z) == pytest.approx((0, 0, round(z)), abs=1e-3)
        assert (image.array[round(z)] == file.pixel_array).all()
        seen.add(round(z))
    assert seen == set(range(22))


@pytest.mark.parametrize("seed", range(6))
def test_oblique_series_keep_their_place(volume, tmp_path, seed):
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(rng=rng).as_matrix() @ np.diag(rng.uniform(0.5, 3.0, 3))
    if seed % 2:
        affine[:3, 2] *= -1  # left-handed: read from the other end
    affine[:3, 3] = rng.uniform(-100, 100, 3)
    image = read_image(write_series(tmp_path / "s", volume, affine))
    for z, y, x in rng.integers(0, volume.shape, (20, 3)):
        i, j, k, _ = np.linalg.solve(image.affine, affine @ (x, y, z, 1))
        assert (i, j, k) == pytest.approx((round(i), round(j), round(k)), abs=1e-3)
        assert image.array[round(k), round(j), round(i)] == volume[z, y, x]
    turned, turn = oriented(image, "SAR")
    assert (turn.back(turned.array) == image.array).all()


def test_gantry_tilt_is_kept_and_said(volume, tmp_path):
    affine = AFFINE.copy()
    affine[1, 2] += 0.8
    image = read_image(write_series(tmp_path / "s", volume, affine))
    assert image.affine == pytest.approx(affine, abs=1e-4)
    assert "gantry tilted by 1" in image.read_as


@pytest.mark.parametrize("count", [1, 2])
def test_missing_slices(volume, tmp_path, count):
    folder = write_series(tmp_path / "s", volume)
    for path in folder.iterdir():
        if pydicom.dcmread(path).InstanceNumber in (4, 5)[:count]:
            path.unlink()
    with pytest.raises(ImageError, match=rf"about {count} slices are missing: .* between slices 3 and 4 of"):
        read_image(folder)


def test_uneven_slices(volume, tmp_path):
    folder = write_series(tmp_path / "s", volume)
    write_slice(folder / "000.dcm", volume[0], AFFINE, 0.4)
    with pytest.raises(ImageError, match="slices are unevenly spaced"):
        read_image(folder)
    crooked = write_series(tmp_path / "c", volume)
    moved = AFFINE.copy()
    moved[0, 3] += 3
    write_slice(crooked / "000.dcm", volume[0], moved, 0)
    with pytest.raises(ImageError, match="off a straight line"):
        read_image(crooked)


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"PixelSpacing": [0.8, 0.7]}, "pixel spacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "direction"),
        ({"PatientID": "Q"}, "patient"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frame of reference"),
        ({"Rows": 10, "Columns": 48}, "size"),
    ],
)
def test_mixed_slices(volume, tmp_path, fields, what):
    folder = write_series(tmp_path / "s", volume)
    write_slice(folder / "000.dcm", volume[0], AFFINE, 0, **fields)
    with pytest.raises(ImageError, match=f"mixed slices: 2 different values of {what}") as caught:
        read_image(folder)
    assert caught.value.hint


def test_several_images_at_a_place(volume, tmp_path):
    folder = write_series(tmp_path / "s", volume)
    for z, plane in enumerate(volume):
        write_slice(folder / f"late{z}.dcm", plane + 1, AFFINE, z, InstanceNumber=100 + z)
    with pytest.raises(ImageError, match="2 images at each of 8 places") as caught:
        read_image(folder)
    assert "TZYX" in caught.value.hint
    image = read_image(folder, "TZYX")
    assert (image.axes, image.frames) == ("TZYX", 2)
    assert (image.array[1] == image.array[0] + 1).all()
    (folder / "late3.dcm").unlink()
    with pytest.raises(ImageError, match="1 images at 1 places, 2 images at 7 places"):
        read_image(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ImagePositionPatient": None}, "no ImagePositionPatient"),
        ({"NumberOfFrames": 3}, "many frames"),
        ({"PixelSpacing": [0.0, 1.0]}, "no right-angled grid"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no right-angled grid"),
        ({"RescaleSlope": 0}, "rescale slope 0"),
        ({"PixelData": b"12"}, "cannot be decoded"),
    ],
)
def test_what_is_no_volume(volume, tmp_path, fields, message):
    with pytest.raises(ImageError, match=message) as caught:
        read_image(write_series(tmp_path / "s", volume[:2], **fields))
    assert caught.value.hint


def test_damaged_files_and_archives(volume, tmp_path):
    folder = write_series(tmp_path / "s", volume[:3])
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, path.name)
    content = (tmp_path / "a.zip").read_bytes()
    assert read_image(tmp_path / "a.zip").array.shape == volume[:3].shape
    (tmp_path / "a.zip").write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match="damaged"):
        read_image(tmp_path / "a.zip")
    file = folder / "000.dcm"
    whole = file.read_bytes()
    file.write_bytes(whole[:-100])
    with pytest.raises(ImageError, match=r"s/000.dcm: pixels cannot be decoded"):
        read_image(folder)
    file.write_bytes(whole[:400])
    with pytest.raises(ImageError, match=r"s/000.dcm: DICOM file is cut off"):
        read_image(folder)
    with pytest.raises(ImageError, match="one DICOM file, expected a series"):
        read_image(file)


def test_values_are_rescaled_as_each_file_says(volume, tmp_path):
    hounsfield = read_image(write_series(tmp_path / "ct", volume, RescaleSlope=1, RescaleIntercept=-1024))
    assert hounsfield.array.dtype == np.int16
    assert (hounsfield.array == volume - 1024).all()
    write_slice(tmp_path / "ct" / "000.dcm", volume[0], AFFINE, 0, RescaleSlope=0.5, RescaleIntercept=0)
    mixed = read_image(tmp_path / "ct")
    assert mixed.array.dtype == np.float32
    assert mixed.array[0] == pytest.approx(volume[0] / 2)
    assert (mixed.array[1:] == volume[1:] - 1024).all()


def test_compressed_pixels(volume, tmp_path):
    planes = volume[:3].astype(np.uint16)
    kinds = {
        "1.2.840.10008.1.2.4.70": lambda plane: imagecodecs.ljpeg_encode(plane, bitspersample=16),
        "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_encode,
    }
    for number, (syntax, encode) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        for z, plane in enumerate(planes):
            write_slice(folder / f"{z}.dcm", plane, AFFINE, z, syntax, PixelData=encapsulate([encode(plane)]))
        assert (read_image(folder).array == planes).all()
    folder = write_series(tmp_path / "rle", volume[:3])
    for path in folder.iterdir():
        file = pydicom.dcmread(path)
        file.compress(RLELossless)
        file.save_as(path)
    assert (read_image(folder).array == planes).all()


def test_one_slice_and_folders_among_images(volume, data, tmp_path):
    image = read_image(write_series(tmp_path / "s", volume[:1], SpacingBetweenSlices=4))
    assert image.spacing == pytest.approx((4.0, 0.8, np.linalg.norm(AFFINE[:3, 0])), rel=1e-3)
    assert list_images(tmp_path / "s") == [tmp_path / "s"]
    assert list_images(tmp_path) == [tmp_path]
    shutil.copy(data / "nuclei" / "images" / "fluo_small.png", tmp_path / "s")
    assert [path.name for path in list_images(tmp_path / "s")] == ["fluo_small.png"]
