"""Medical volumes lie in napari where they lie in the patient, and labels come back on the file's grid."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.layers import Image, Labels, Layer

from napari_xlstm_unet.geometry import KEY, anatomical_affine, pixel_size, placement
from napari_xlstm_unet.volumes import get_reader, read_volume, write_volume

pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")

AXES = [
    np.array(flips)[:, None] * np.eye(3)[list(order)]
    for order in permutations(range(3))
    for flips in product((1, -1), repeat=3)
]
"""Rotations and mirrors of the 48 orientations in which a volume may be stored."""

OBLIQUE = np.linalg.qr(np.array([[1.0, 0.1, 0.05], [-0.1, 1.0, 0.2], [0.0, -0.2, 1.0]]))[0]


def _write(folder: Path, turn: np.ndarray) -> tuple[Path, np.ndarray, np.ndarray]:
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 1.5, 3.0])
    affine[:3, 3] = (-20, 10, 5)
    voxels = np.random.default_rng(0).integers(0, 1000, (5, 6, 7)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, affine), folder / "scan.nii.gz")
    return folder / "scan.nii.gz", voxels, affine


def _layer(path: Path) -> Image:
    [(data, keywords, kind)] = read_volume(str(path))
    layer = Layer.create(data, keywords, kind)
    assert isinstance(layer, Image)
    return layer


@pytest.mark.parametrize("turn", [*AXES, OBLIQUE], ids=lambda turn: nib.orientations.aff2axcodes(turn))
def test_every_voxel_lies_where_it_lies_in_the_patient(tmp_path: Path, turn: np.ndarray) -> None:
    path, voxels, affine = _write(tmp_path, turn)
    layer = _layer(path)
    assert pixel_size(layer, "ZYX", (1, 1, 1)).unit == "mm"
    here = np.round(np.linalg.inv(layer.affine.affine_matrix[:3, :3] @ np.diag(layer.scale)), 12)
    for place in ((0, 0, 0), (4, 5, 6), (1, 2, 3)):
        right, front, up = (affine @ [*place, 1])[:3]
        found = here @ (np.array([up, -front, -right]) - layer.affine.affine_matrix[:3, 3])
        index = tuple(np.round(found).astype(int))
        np.testing.assert_allclose(found, index, atol=1e-6)
        assert layer.data[index] == voxels[place]
        np.testing.assert_allclose(layer.data_to_world(index), (up, -front, -right))
        matrix = anatomical_affine(layer, "ZYX", (1, 1, 1))
        assert matrix is not None
        np.testing.assert_allclose((matrix @ [*index[::-1], 1])[:3], (right, front, up))
    if turn is not OBLIQUE:  # world axes and array axes agree: napari slices it without a warning
        assert (layer.affine.affine_matrix[:3, :3] != 0).sum() == 3
        assert np.diag(layer.affine.affine_matrix[:3, :3]).all()


@pytest.mark.parametrize("turn", [AXES[0], AXES[9], AXES[22], AXES[45], OBLIQUE], ids=range(5))
def test_labels_come_back_on_the_grid_of_the_file(tmp_path: Path, turn: np.ndarray) -> None:
    path, voxels, affine = _write(tmp_path, turn)
    layer = _layer(path)
    bright = Labels(
        (np.asarray(layer.data) > 500).astype(np.uint16),
        metadata={KEY: dict(layer.metadata[KEY])},
        **placement(layer, "ZYX", tuple(slice(0, n) for n in layer.data.shape), (1, 1, 1)),
    )
    data, meta, _ = bright.as_layer_data_tuple()
    [written] = write_volume(str(tmp_path / "bright.nii.gz"), data, meta)
    file = nib.load(written)
    np.testing.assert_allclose(file.affine, affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(file.dataobj), voxels > 500)


def test_a_part_keeps_its_place(tmp_path: Path) -> None:
    path, voxels, affine = _write(tmp_path, AXES[22])
    layer = _layer(path)
    window = (slice(1, 4), slice(2, 5), slice(0, 5))
    part = Labels(
        (np.asarray(layer.data)[window] > 500).astype(np.uint8),
        metadata={KEY: dict(layer.metadata[KEY])},
        **placement(layer, "ZYX", window, (1, 1, 1)),
    )
    data, meta, _ = part.as_layer_data_tuple()
    file = nib.load(write_volume(str(tmp_path / "part.nii"), data, meta)[0])
    for index in np.ndindex(file.shape):
        place = np.linalg.inv(affine) @ file.affine @ [*index, 1]
        assert file.dataobj[index] == (voxels[tuple(np.round(place[:3]).astype(int))] > 500)


def test_labels_files_open_as_labels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.uint8), np.eye(4)), tmp_path / "scan_labels.nii")
    assert read_volume(str(tmp_path / "scan_labels.nii"))[0][2] == "labels"
    assert get_reader([str(tmp_path), str(tmp_path)]) is None
