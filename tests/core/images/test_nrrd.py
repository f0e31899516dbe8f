"""NRRD volumes in, segmentations out."""

from __future__ import annotations

import nrrd
import numpy as np
import pytest

from xlstm_unet.errors import ImageError, OutputError
from xlstm_unet.images import Image, read_image, read_labels, write_segmentation
from xlstm_unet.spec import Label

VOXELS = np.arange(3 * 4 * 5, dtype=np.int16).reshape(5, 4, 3)  # z, y, x
DIRECTIONS = np.array([[0.5, 0.1, 0], [-0.1, 0.6, 0], [0, 0, 2.0]])  # rows: x, y, z
ORIGIN = np.array([10.0, -20.0, 30.0])
LABELS = (
    Label(value=1, name="anterior", color=(255, 0, 51), terminology="c~a^1^b~d^2^e~^^~r~^^~^^"),
    Label(value=2, name="posterior", color=(0, 128, 255)),
)


def save(path, array=VOXELS, **fields):
    header = {"space": "left-posterior-superior", "space directions": DIRECTIONS, "space origin": ORIGIN}
    header |= {"kinds": ["domain"] * 3, "encoding": "gzip"} | fields
    nrrd.write(str(path), array, {k: v for k, v in header.items() if v is not None}, index_order="C")
    return path


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LPS", (-1, -1, 1)),
    ],
)
def test_each_voxel_lies_where_the_header_says(tmp_path, space, signs):
    image = read_image(save(tmp_path / "a.nrrd", space=space))
    assert (image.axes, image.unit, image.name) == ("ZYX", "mm", "a")
    assert (image.array == VOXELS).all()
    assert image.spacing == pytest.approx(np.linalg.norm(DIRECTIONS, axis=1)[::-1])
    for x, y, z in ((0, 0, 0), (2, 3, 4), (1, 0, 3)):
        world = np.array(signs) * (np.array([x, y, z]) @ DIRECTIONS + ORIGIN)
        assert (image.affine @ (x, y, z, 1))[:3] == pytest.approx(world)


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", "u2", "i4", "u4", "i8", "f4", ">f8"])
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_types_and_encodings(tmp_path, dtype, encoding):
    array = VOXELS.astype(dtype)
    image = read_image(save(tmp_path / "a.nrrd", array, encoding=encoding))
    assert (image.array == array).all()
    assert image.array.dtype == np.dtype(dtype).newbyteorder("=")


def test_header_and_data_in_two_files(tmp_path):
    save(tmp_path / "a.nhdr")
    assert (read_image(tmp_path / "a.nhdr").array == VOXELS).all()
    text = (tmp_path / "a.nhdr").read_text()
    (tmp_path / "a.nhdr").write_text(text.replace("data file: a.raw.gz", "data file: ../a.raw.gz"))
    with pytest.raises(ImageError, match=r"\.\./a\.raw\.gz"):
        read_image(tmp_path / "a.nhdr")


def test_spacing_without_a_place(tmp_path):
    plain = {"space": None, "space directions": None, "space origin": None, "kinds": None}
    image = read_image(save(tmp_path / "a.nrrd", spacings=[1, 2, 3], units=["um"] * 3, **plain))
    assert (image.spacing, image.unit, image.affine) == ((3.0, 2.0, 1.0), "µm", None)
    image = read_image(save(tmp_path / "b.nrrd", spacings=[1, 2, 3], **plain))
    assert image.spacing is None
    assert "unit not stated" in image.read_as
    assert read_image(save(tmp_path / "c.nrrd", **plain)).spacing is None
    with pytest.raises(ImageError, match=r"voxel size in the header is \(3.0, 0.0, 1.0\)"):
        read_image(save(tmp_path / "d.nrrd", spacings=[1, 0, 3], units=["mm"] * 3, **plain))


def test_channels_and_time(tmp_path):
    pixels = np.stack([VOXELS, VOXELS + 1], -1)
    rows = np.vstack([np.full((1, 3), np.nan), DIRECTIONS])
    fields = {"space directions": rows, "kinds": ["vector", "domain", "domain", "domain"]}
    image = read_image(save(tmp_path / "a.nrrd", pixels, **fields))
    assert image.axes == "CZYX"
    assert (image.array[1] == VOXELS + 1).all()
    assert image.affine is not None
    fields["kinds"] = ["list", "domain", "domain", "domain"]
    with pytest.raises(ImageError, match="not said what each axis is") as caught:
        read_image(save(tmp_path / "b.nrrd", pixels, **fields))
    assert "TZYX" in caught.value.hint
    series = read_image(tmp_path / "b.nrrd", "ZYXT")
    assert (series.axes, series.frames) == ("TZYX", 2)
    assert (series.array[0] == VOXELS).all()


def test_damage_and_size(tmp_path):
    for encoding in ("raw", "gzip"):
        content = save(tmp_path / "a.nrrd", encoding=encoding).read_bytes()
        for length in (3, 20, 150, len(content) - 10):
            (tmp_path / "cut.nrrd").write_bytes(content[:length])
            with pytest.raises(ImageError) as caught:
                read_image(tmp_path / "cut.nrrd")
            assert caught.value.hint
    (tmp_path / "big.nrrd").write_bytes(content.replace(b"sizes: 3 4 5", b"sizes: 30000 30000 90"))
    with pytest.raises(ImageError, match="90 x 30000 x 30000 values"):
        read_image(tmp_path / "big.nrrd")
    (tmp_path / "odd.nrrd").write_bytes(content.replace(b"type: int16", b"type: block"))
    with pytest.raises(ImageError, match="type 'block'"):
        read_image(tmp_path / "odd.nrrd")


def test_a_segmentation_for_slicer(tmp_path):
    image = read_image(save(tmp_path / "a.nrrd"))
    labels = (VOXELS % 3).astype(np.int32)
    write_segmentation(tmp_path / "a.seg.nrrd", labels, image, LABELS)
    header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
    assert header["type"] == "uint8"
    assert header["space"] == "left-posterior-superior"
    assert header["space directions"] == pytest.approx(DIRECTIONS)
    assert header["space origin"] == pytest.approx(ORIGIN)
    assert header["Segment0_Name"] == "anterior"
    assert [float(part) for part in header["Segment0_Color"].split()] == pytest.approx([1, 0, 0.2])
    assert header["Segment0_Tags"].startswith("TerminologyEntry:c~a^1^b~d^2^e~^^~r~^^~^^|")
    assert "Terminology" not in header["Segment1_Tags"]
    assert (header["Segment1_LabelValue"], header["Segment1_Extent"]) == ("2", "0 2 0 3 0 4")
    assert (read_labels(tmp_path / "a.seg.nrrd", like=image) == labels).all()


def test_segmentations_of_many_objects_and_in_micrometres(tmp_path):
    image = Image(np.zeros((5, 4, 3)), "ZYX", (3.0, 2.0, 1.0), "µm")
    labels = np.zeros((5, 4, 3), np.int32)
    labels[4, 3, 2] = 70_000
    write_segmentation(tmp_path / "a.seg.nrrd", labels, image, (Label(value=70_000, name="cell"),))
    header = nrrd.read_header(str(tmp_path / "a.seg.nrrd"))
    assert header["type"] == "int32"
    assert np.abs(header["space directions"]) == pytest.approx(np.diag([1e-3, 2e-3, 3e-3]))
    assert read_labels(tmp_path / "a.seg.nrrd").max() == 70_000
    series = Image(np.zeros((2, 5, 4, 3)), "TZYX")
    with pytest.raises(OutputError, match="2 time points"):
        write_segmentation(tmp_path / "b.seg.nrrd", np.zeros((2, 5, 4, 3), int), series, LABELS)
    assert not (tmp_path / "b.seg.nrrd").exists()
