"""Turning volumes: every voxel keeps its value and its place in the world."""

from __future__ import annotations

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from xlstm_unet.images import Image, directions, oriented, read_image

CODES = ["".join(c) for axes in permutations(("LR", "AP", "SI")) for c in product(*axes)]


@pytest.fixture(scope="module")
def scan(data):
    return read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")


def world(affine, index):
    """World position of an array index (z, y, x)."""
    return affine @ (*index[::-1], 1)


def test_there_are_48():
    assert len(set(CODES)) == 48


@pytest.mark.parametrize("codes", CODES)
def test_all_orientations_as_nibabel_turns_them(scan, codes):
    image = Image(scan.array, "ZYX", (1.0, 2.0, 3.0), "mm", np.diag([3.0, 2.0, 1.0, 1.0]))
    assert directions(image.affine) == "SAR"
    turned, turn = oriented(image, codes)
    assert bool(turn) == (codes != "SAR")
    assert directions(turned.affine) == codes
    file = nib.Nifti1Image(scan.array.transpose(), image.affine)
    change = nib.orientations.ornt_transform(
        nib.io_orientation(file.affine), nib.orientations.axcodes2ornt(codes[::-1])
    )
    expected = file.as_reoriented(change)
    assert (turned.array == np.asanyarray(expected.dataobj).transpose()).all()
    assert turned.affine == pytest.approx(expected.affine)
    assert turned.spacing == pytest.approx(np.array(expected.header.get_zooms())[::-1])
    assert (turn.back(turned.array) == image.array).all()
    window = turn.window({"Z": slice(3, 9), "Y": slice(5, 6), "X": slice(0, 7)})
    part = turned.array[tuple(window[axis] for axis in "ZYX")]
    assert (turn.back(part) == image.array[3:9, 5:6, 0:7]).all()


def test_oblique_sheared_and_left_handed_volumes_stay_in_their_place(scan):
    rng = np.random.default_rng(0)
    for number in range(40):
        affine = np.eye(4)
        affine[:3, :3] = Rotation.random(rng=rng).as_matrix() @ np.diag(rng.uniform(0.4, 6.0, 3))
        if number % 2:
            affine[:3, 0] *= -1
        if number % 4 > 1:
            affine[:3, 1] += 0.25 * affine[:3, 2]
        affine[:3, 3] = rng.uniform(-200, 200, 3)
        image = Image(scan.array, "ZYX", unit="mm", affine=affine)
        turned, turn = oriented(image, "SAR")
        assert directions(turned.affine) == "SAR"
        numbers = np.arange(image.array.size).reshape(image.array.shape)
        for index in rng.integers(0, turned.array.shape, (5, 3)):
            old = np.unravel_index(turn.array(numbers)[tuple(index)], numbers.shape)
            assert turned.array[tuple(index)] == image.array[old]
            assert world(turned.affine, index) == pytest.approx(world(affine, old))


def test_time_and_channels_are_left_alone():
    array = np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6)
    image = Image(array, "TCZYX", affine=np.diag([-1.0, 1.0, 1.0, 1.0]))
    turned, turn = oriented(image, "SAR")
    assert (turned.array == array[..., ::-1]).all()
    assert (turn.back(turned.array[:, 0]) == array[:, 0]).all()


def test_what_cannot_be_turned_stays(scan):
    for image in (Image(scan.array, "ZYX"), Image(scan.array[0], "YX", affine=np.eye(4)), scan):
        same, turn = oriented(image, "SAR")
        assert same is image
        assert not turn
        assert turn.back(image.array) is image.array
    assert oriented(scan, None)[0] is scan
