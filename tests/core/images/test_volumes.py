"""Resampling volumes: the numbers of nnU-Net's rules, computed here with scikit-image and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates
from skimage.transform import resize

from xlstm_unet.errors import CancelledError
from xlstm_unet.images import read_image, read_labels, resample_volume
from xlstm_unet.images.volumes import resampled_shape, separate_axis


@pytest.fixture(scope="module")
def volume(data):
    return read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz").array


def in_one_go(array, shape, order):
    return resize(array.astype(float), shape, order, mode="edge", anti_aliasing=False)


def slice_by_slice(array, shape, order, axis):
    """Resize the slices across an axis, then look the nearest one up."""
    flat = tuple(n for i, n in enumerate(shape) if i != axis)
    slices = np.stack([in_one_go(plane, flat, order) for plane in np.moveaxis(array, axis, 0)], axis)
    grid = list(np.meshgrid(*map(np.arange, shape), indexing="ij"))
    grid[axis] = (grid[axis] + 0.5) * array.shape[axis] / shape[axis] - 0.5
    return map_coordinates(slices, grid, order=0, mode="nearest")


@pytest.mark.parametrize("new", [(0.9, 1.3, 2.6), (1.4, 0.5, 1.0), (1.0, 1.0, 1.03)])
@pytest.mark.parametrize(("kind", "order"), [("image", 3), ("probabilities", 1)])
def test_isotropic_volumes_are_resized_as_a_whole(volume, new, kind, order):
    found = resample_volume(volume[None], (1.0, 1.0, 1.0), new, kind=kind)
    shape = resampled_shape(volume.shape, (1.0, 1.0, 1.0), new)
    assert found.shape == (1, *shape)
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(in_one_go(volume, shape, order), abs=2e-5 * volume.max())


@pytest.mark.parametrize(
    ("old", "new", "axis"),
    [
        ((4.0, 1.0, 1.0), (3.0, 0.8, 0.9), 0),
        ((1.0, 1.0, 1.0), (1.2, 0.9, 3.9), 2),
        ((1, 6.5, 0.9), (1, 5, 1), 1),
    ],
)
@pytest.mark.parametrize(("kind", "order"), [("image", 3), ("probabilities", 1)])
def test_a_long_axis_is_taken_apart(volume, old, new, axis, kind, order):
    found = resample_volume(volume[None], old, new, kind=kind)[0]
    expected = slice_by_slice(volume, found.shape, order, axis)
    assert found == pytest.approx(expected, abs=2e-5 * volume.max())


@pytest.mark.parametrize("new", [(0.6, 1.4, 0.8), (5.0, 1.2, 0.7)])
def test_labels_are_taken_from_one_half_on(data, new):
    labels = read_labels(data / "hippocampus" / "labels" / "hippocampus_125.nii.gz")
    found = resample_volume(labels[None], (1.0, 1.0, 1.0), new, kind="labels")[0]
    assert found.dtype == labels.dtype
    expected = np.zeros(found.shape, int)
    apart = separate_axis((1.0, 1.0, 1.0), new)
    for value in (0, 1, 2):
        mask = (labels == value).astype(float)
        share = (
            in_one_go(mask, found.shape, 1) if apart is None else slice_by_slice(mask, found.shape, 1, apart)
        )
        expected[share >= 0.5] = value
    assert (found != expected).mean() < 1e-4  # ties at exactly one half


def test_which_axis_is_taken_apart():
    assert separate_axis((3.0, 1.0, 1.0), (1.0, 1.0, 1.0)) is None
    assert separate_axis((3.1, 1.0, 1.0), (1.0, 1.0, 1.0)) == 0
    assert separate_axis((1.0, 1.0, 1.0), (1.0, 1.0, 3.1)) == 2
    assert separate_axis((0.24, 1.25, 1.25), (1.0, 1.0, 1.0)) is None
    assert separate_axis((5.0, 1.0), (1.0, 1.0)) is None


def test_the_way_back_is_to_the_grid_asked_for(volume):
    there = resample_volume(volume[None], (1.0, 1.0, 1.0), (1.7, 1.1, 0.6))
    back = resample_volume(there, (1.7, 1.1, 0.6), (1.0, 1.0, 1.0), shape=volume.shape)
    assert back.shape == (1, *volume.shape)
    assert np.corrcoef(back.ravel(), volume.ravel())[0, 1] > 0.98


def test_nothing_changes_where_the_size_stays(volume):
    same = resample_volume(volume[None], (1.0, 1.0, 1.0), (1.0, 1.0, 1.001))
    assert (same[0] == volume).all()
    labels = np.zeros((1, 4, 5, 6), np.uint8)
    assert resample_volume(labels, (1, 1, 1), (1, 1, 1), kind="labels") is labels


def test_planes_and_single_slices(volume):
    plane = resample_volume(volume[None, 5], (1.0, 1.0), (0.5, 2.0))[0]
    assert plane == pytest.approx(in_one_go(volume[5], plane.shape, 3), abs=2e-5 * volume.max())
    assert resample_volume(volume[None, :1], (1.0, 1.0, 1.0), (0.5, 1.0, 1.0)).shape[1] == 2
    assert resample_volume(volume[None, :1], (1.0, 1.0, 1.0), (9.0, 1.0, 1.0)).shape[1] == 1


def test_cancel_and_wrong_sizes(volume):
    with pytest.raises(CancelledError):
        resample_volume(volume[None], (1.0,) * 3, (0.5,) * 3, cancel=lambda: True)
    with pytest.raises(ValueError, match="cannot resample"):
        resample_volume(volume[None], (1.0,) * 3, (0.5,) * 3, shape=(3, 4))
