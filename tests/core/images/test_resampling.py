"""Resampling: exact on what can be checked by hand, close to independent code elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xlstm_unet.errors import CancelledError
from xlstm_unet.images import resample

GENERATOR = np.random.default_rng(0)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("factors", [(0.5, 2.0), (1.7, 0.3), (3.0, 1.0)])
def test_constants_stay_and_sizes_are_rounded(order, factors):
    array = np.full((2, 10, 13), 5, np.float32)
    result = resample(array, factors, order)
    assert result.shape == (2, round(10 * factors[0]), round(13 * factors[1]))
    assert result == pytest.approx(5)


def test_linear_enlarging_agrees_with_scipy():
    array = GENERATOR.random((8, 9, 10)).astype(np.float32)
    result = resample(array, (2.0, 1.5, 1.2))
    expected = ndimage.zoom(
        array, np.array(result.shape) / array.shape, order=1, grid_mode=True, mode="nearest"
    )
    assert result == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("order", [1, 3])
def test_a_ramp_keeps_its_place(order):
    ramp = np.tile(np.arange(64, dtype=np.float32) + 0.5, (8, 1))
    for factor in (0.5, 0.25, 2.0, 1.5):
        result = resample(ramp, (1.0, factor), order)
        places = (np.arange(result.shape[1]) + 0.5) / factor
        inner = slice(8, -8) if factor > 1 else slice(3, -3)
        assert result[0, inner] == pytest.approx(places[inner], abs=1e-3)


def test_shrinking_does_not_alias():
    stripes = np.tile(np.array([0, 1], np.float32), (64, 64))
    result = resample(stripes, (0.25, 0.25))
    assert np.abs(result[4:-4, 4:-4] - 0.5).max() < 0.02


def test_nearest_keeps_labels_and_dtype():
    labels = np.array([[0, 70_000], [3, 4]], np.int32)
    result = resample(labels, (3, 2), 0)
    assert result.dtype == np.int32
    assert (result == labels.repeat(3, axis=0).repeat(2, axis=1)).all()
    assert (resample(result, (1 / 3, 1 / 2), 0) == labels).all()


def test_nothing_to_do_costs_nothing():
    array = GENERATOR.random((5, 6)).astype(np.float32)
    assert resample(array, (1.0, 1.0)) is array
    assert resample(array, shape=(5, 6)) is array


def test_one_pixel_survives():
    assert resample(np.ones((1, 1)), (0.01, 0.01)).shape == (1, 1)
    assert resample(np.full((1, 1), 3), shape=(4, 5)) == pytest.approx(3)


def test_large_arrays_are_resized_in_pieces_that_fit_together(monkeypatch):
    array = GENERATOR.random((3, 40, 50)).astype(np.float32)
    whole = resample(array, (0.7, 1.3))
    monkeypatch.setattr("xlstm_unet.images.resampling._CHUNK", 64)
    assert (resample(array, (0.7, 1.3)) == whole).all()


def test_it_can_be_cancelled():
    with pytest.raises(CancelledError):
        resample(np.zeros((10, 10), np.float32), (2, 2), cancel=lambda: True)


@pytest.mark.parametrize(
    "kwargs", [{}, {"factors": (1, 1), "shape": (2, 2)}, {"shape": (0, 5)}, {"shape": (2, 2, 2, 2)}]
)
def test_bad_sizes_are_refused(kwargs):
    with pytest.raises(ValueError, match="resample"):
        resample(np.zeros((5, 6)), **kwargs)
