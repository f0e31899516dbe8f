"""Estimating the diameter of objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xlstm_unet.images import normalise
from xlstm_unet.nets import Network
from xlstm_unet.segment.diameter import (
    _trial,
    busiest_window,
    estimate_diameter,
    found_as_is,
    whole_object_diameters,
)
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.spec import ModelSpec

Discs = Callable[..., tuple[np.ndarray, np.ndarray]]


def test_diameters_of_whole_objects_only(discs: Discs) -> None:
    _, labels = discs((200, 200), 20, 40)
    diameters = whole_object_diameters(labels)
    assert np.median(diameters) == pytest.approx(20, rel=0.1)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    assert len(diameters) == len(np.setdiff1d(np.unique(labels), [*border, 0]))


def test_diameter_of_a_ball() -> None:
    grid = np.indices((30, 30, 30)) - 15
    ball = (np.square(grid).sum(0) <= 8**2).astype(np.int32)
    assert whole_object_diameters(ball) == pytest.approx([16], rel=0.05)


def test_busiest_window_is_where_something_is(discs: Discs) -> None:
    image = np.zeros((1, 300, 300), np.float32)
    image[0, 200:264, 200:264] = discs((64, 64))[0]
    window = busiest_window(image, (100, 100))
    assert window.shape == (1, 100, 100)
    assert window.any()
    assert busiest_window(image, (400, 300)).shape == image.shape


@pytest.mark.parametrize("diameter", [7, 14, 28, 56])
def test_estimates_the_diameter_of_discs(
    disc_model: tuple[ModelSpec, Network], discs: Discs, diameter: int
) -> None:
    spec, network = disc_model
    side = max(128, 6 * diameter)
    image, _ = discs((side, side), diameter, int(0.4 * side**2 / diameter**2), seed=5)
    found = estimate_diameter(
        normalise(image[None], spec.normalisation), Predictor(spec, network, device="cpu")
    )
    assert found.diameter == pytest.approx(diameter, rel=0.3)
    assert found.maps is not None, "the image is one tile: its maps are used again"
    assert found.maps.shape == (2, side, side)


def test_unsure_objects_lower_the_sureness_of_a_scale(disc_model: tuple[ModelSpec, Network]) -> None:
    """They are dropped from labels, but noise must not look sure for that."""
    maps = np.zeros((2, 60, 80), np.float16)
    for row in (10, 30):
        for column, probability in ((10, 1.0), (30, 1.0), (50, 0.6)):
            maps[:, row : row + 10, column : column + 10] = probability
    predictor = Predictor(*disc_model, device="cpu")
    trial = _trial(maps, 1.0, predictor, None)
    assert trial is not None
    assert trial.sureness == pytest.approx(2 * (1 + 1 + 0.6) / 3 - 1, abs=0.01)


def test_nothing_to_measure_gives_no_estimate(disc_model: tuple[ModelSpec, Network]) -> None:
    spec, network = disc_model
    array = np.zeros((1, 40, 40), np.float32)
    array[0, 20, 20] = 1
    assert estimate_diameter(array, Predictor(spec, network, device="cpu")).diameter is None


@pytest.mark.parametrize(
    ("diameter", "model_diameter", "as_is"),
    [
        (14, 18, False),
        (16, 18, True),
        (18, 18, True),
        (80, 18, False),
        (9, 8, True),
        (20, 32, True),
    ],
)
def test_only_small_and_huge_objects_are_resampled(
    diameter: float, model_diameter: float, as_is: bool
) -> None:
    assert found_as_is(diameter, model_diameter) is as_is
