"""Volumes in every position: segmenting what was turned is turning what was segmented."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from xlstm_unet.images import Image, read_image, resample_volume, write_labels
from xlstm_unet.nets import build_network
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import load_model

CODES = ["".join(codes) for axes in permutations(("LR", "AP", "SI")) for codes in product(*axes)]
LEFT_HANDED = ("LAS", "RAI", "PLS")
SOME = ("RAS", "LPS", "PIR", *LEFT_HANDED)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """A small network, untrained: it sees the same image however the file stores it."""
    spec = ModelSpec(
        name="untrained",
        dimension=3,
        task="classes",
        labels=(Label(value=1, name="a"), Label(value=2, name="p")),
        network=NetworkSpec(
            variant="bot",
            mixer="none",
            features=(4, 8),
            kernels=((3, 3, 3),) * 2,
            strides=((1, 1, 1), (2, 2, 2)),
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        ),
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(24, 24, 24),
        spacing=(1.0, 1.0, 1.0),
        spacing_unit="mm",
        orientation="SAR",
    )
    return Segmenter(spec, build_network(spec, generator=torch.Generator().manual_seed(0)), device="cpu")


@pytest.fixture(scope="module")
def scan(data: Path) -> nib.Nifti1Image:
    """Part of a real scan, in RAS."""
    return nib.load(data / "hippocampus" / "images" / "hippocampus_125.nii.gz").slicer[:20, :24, :22]


@pytest.fixture(scope="module")
def upright(
    segmenter: Segmenter, scan: nib.Nifti1Image, tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """Labels of the scan as it is, indexed (x, y, z)."""
    found = np.asarray(segmented(segmenter, scan, tmp_path_factory.mktemp("upright")).dataobj)
    assert min(np.bincount(found.ravel(), minlength=3)) > 100
    return found


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Smaller of the two labels' Dice."""
    pairs = [(found == value, truth == value) for value in (1, 2)]
    return min(2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b)) for a, b in pairs)


def world(labels: np.ndarray, affine: np.ndarray, value: int) -> np.ndarray:
    """World positions of the voxels of a label indexed (x, y, z)."""
    index = np.argwhere(labels == value)
    return (affine @ np.c_[index, np.ones(len(index))].T)[:3].T


def segmented(segmenter: Segmenter, file: nib.Nifti1Image, folder: Path) -> nib.Nifti1Image:
    """Save, read, segment, write and load, as the command line does."""
    nib.save(file, folder / "turned.nii.gz")
    image = read_image(folder / "turned.nii.gz")
    write_labels(folder / "turned_labels.nii.gz", segmenter(image).labels, image)
    return nib.load(folder / "turned_labels.nii.gz")


def turned(file: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    change = nib.orientations.ornt_transform(
        nib.io_orientation(file.affine), nib.orientations.axcodes2ornt(codes)
    )
    return file.as_reoriented(change)


@pytest.mark.parametrize("codes", CODES)
def test_all_48_orientations(
    segmenter: Segmenter, upright: np.ndarray, scan: nib.Nifti1Image, codes: str, tmp_path: Path
) -> None:
    found = segmented(segmenter, turned(scan, codes), tmp_path)
    assert "".join(nib.aff2axcodes(found.affine)) == codes
    back = turned(found, "RAS")
    assert back.affine == pytest.approx(scan.affine)
    assert (np.asarray(back.dataobj) == upright).all()


@pytest.mark.parametrize("sheared", [False, True])
@pytest.mark.parametrize("codes", SOME)
def test_oblique_left_handed_and_sheared(
    segmenter: Segmenter,
    upright: np.ndarray,
    scan: nib.Nifti1Image,
    codes: str,
    sheared: bool,
    tmp_path: Path,
) -> None:
    rng = np.random.default_rng(SOME.index(codes))
    place = np.eye(4)
    place[:3, :3] = Rotation.from_rotvec(rng.uniform(-0.35, 0.35, 3)).as_matrix()
    place[:3, 3] = rng.uniform(-80, 80, 3)
    if sheared:
        place[:3, 1] += 0.1 * place[:3, 2]
        place[:3, 1] /= np.linalg.norm(place[:3, 1])
    file = turned(nib.Nifti1Image(np.asarray(scan.dataobj), place @ scan.affine), codes)
    assert (np.linalg.det(file.affine) < 0) == (codes in LEFT_HANDED)
    found = segmented(segmenter, file, tmp_path)
    assert found.affine == pytest.approx(file.affine, abs=1e-4)
    assert (np.asarray(turned(found, "RAS").dataobj) == upright).all()
    for value in (1, 2):
        expected = world(upright, place @ scan.affine, value)
        places = world(np.asarray(found.dataobj), found.affine, value)
        assert len(places) == len(expected)
        assert cKDTree(expected).query(places)[0].max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("spacing", [(1 / 3, 1.0, 1 / 3), (0.5, 0.7, 0.9), (0.25, 1.0, 1.0)])
def test_anisotropic_voxels(data: Path, spacing: tuple[float, ...]) -> None:
    """The embedded model, on one scan as it is and sampled more finely along some axes."""
    bundle = load_model("hippocampus-mri")
    segmenter = Segmenter(bundle.spec, bundle.build(), device="cpu")
    image = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    result = segmenter(image, keep_maps=True)
    assert result.maps is not None
    plain = result.labels
    fine = resample_volume(image.array[None], (1.0, 1.0, 1.0), spacing)[0]
    exact = tuple(n / m for n, m in zip(image.array.shape, fine.shape, strict=True))
    affine = image.affine @ np.diag([*exact[::-1], 1.0])
    affine[:3, 3] = (image.affine @ (*(0.5 * np.array(exact[::-1]) - 0.5), 1))[:3]
    found = segmenter(Image(fine, "ZYX", exact, "mm", affine)).labels
    ones = (1.0, 1.0, 1.0)
    maps = resample_volume(result.maps.values, ones, exact, shape=fine.shape, kind="probabilities")
    assert dice(found, maps.argmax(axis=0)) > 0.99
    for value in (1, 2):
        centre = (affine @ np.append(np.argwhere(found == value).mean(0)[::-1], 1))[:3]
        expected = (image.affine @ np.append(np.argwhere(plain == value).mean(0)[::-1], 1))[:3]
        assert np.abs(centre - expected).max() < 0.5 * min(exact)
