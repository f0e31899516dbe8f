"""A simulated annotator on real images: what it finds, what it draws, where it slips."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from xlstm_unet.learn import Dataset
from xlstm_unet.measure import match_instances, score_instances
from xlstm_unet.study.annotator import Habits, correct_instances, correct_slices, drawn, seen_diameter
from xlstm_unet.study.annotator_errors import find_errors

Labels = NDArray[np.int32]
STEADY = Habits(jitter=0, omissions=0)


@pytest.fixture(scope="module")
def truth(fluorescence: Dataset) -> Labels:
    """66 nuclei of a real image."""
    return next(sample.labels for sample in fluorescence.samples if sample.id == "fluo_small")


@pytest.fixture
def generator() -> np.random.Generator:
    return np.random.default_rng(3)


def _box(labels: Labels, label: int) -> tuple[slice, ...]:
    return ndimage.find_objects(labels)[label - 1]


def test_every_kind_of_error_is_found_and_mended(truth: Labels, generator: np.random.Generator) -> None:
    prediction = truth.copy()
    neighbours = next(
        (int(label), int(other[0]))
        for label in np.unique(truth)[1:]
        if (other := np.setdiff1d(truth[ndimage.binary_dilation(truth == label)], (0, label))).size
    )
    others = [int(n) for n in np.unique(truth)[1:] if n not in neighbours]
    missed, torn, eaten = others[:3]
    prediction[truth == neighbours[1]] = neighbours[0]
    prediction[truth == missed] = 0
    box = _box(truth, torn)
    half = (box[0].start + box[0].stop) // 2
    part = prediction[half:]
    part[truth[half:] == torn] = 1000
    prediction[(truth == eaten) & ~ndimage.binary_erosion(truth == eaten, iterations=3)] = 0
    free = ndimage.distance_transform_edt(prediction == 0)
    place = np.unravel_index(free.argmax(), free.shape)
    prediction[place[0] - 2 : place[0] + 3, place[1] - 2 : place[1] + 3] = 1001

    found = {(error.predicted, error.true) for error in find_errors(prediction, truth)}
    assert found == {
        ((neighbours[0],), tuple(sorted(neighbours))),
        ((), (missed,)),
        ((torn, 1000), (torn,)),
        ((eaten,), (eaten,)),
        ((1001,), ()),
    }
    mended = correct_instances(prediction, truth, 100, STEADY, generator)
    assert mended.corrections == 6
    assert mended.wrong == 0
    assert mended.accepted is None
    assert score_instances(mended.labels, truth).f1_90 == 1


def test_nothing_is_done_to_what_is_right(truth: Labels, generator: np.random.Generator) -> None:
    found = correct_instances(truth, truth, 10, Habits(), generator)
    assert found.corrections == 0
    np.testing.assert_array_equal(found.labels, truth)


def test_as_many_as_asked_for_and_all_else_untouched(truth: Labels, generator: np.random.Generator) -> None:
    prediction = np.where(truth % 2 == 0, truth, 0).astype(np.int32)
    found = correct_instances(prediction, truth, 7, Habits(), generator)
    assert found.corrections == 7
    assert np.unique(found.labels).size == np.unique(prediction).size + 7
    kept = prediction > 0
    np.testing.assert_array_equal(found.labels[kept], prediction[kept])


def test_an_unsteady_hand_stays_near_the_outline(truth: Labels, generator: np.random.Generator) -> None:
    everything = correct_instances(np.zeros_like(truth), truth, 1000, Habits(omissions=0), generator)
    agreement = match_instances(everything.labels, truth).iou
    assert everything.corrections == len(agreement)
    assert 0.8 < agreement.mean() < 0.95
    ball = np.linalg.norm(np.indices((21, 21, 21)) - 10, axis=0) < 7
    moved = drawn(ball, 0.05, generator)
    assert 0.7 < (moved & ball).sum() / (moved | ball).sum() < 1
    np.testing.assert_array_equal(drawn(ball, 0, generator), ball)


def test_errors_are_overlooked(truth: Labels, generator: np.random.Generator) -> None:
    found = correct_instances(np.zeros_like(truth), truth, 1000, Habits(omissions=0.5), generator)
    assert 15 < found.corrections < 50


def test_wrong_corrections_make_it_worse(truth: Labels, generator: np.random.Generator) -> None:
    prediction = np.where(truth > 6, truth, 0).astype(np.int32)
    found = correct_instances(prediction, truth, 20, Habits(omissions=0, wrong=1), generator)
    assert found.wrong == found.corrections > 0
    assert score_instances(found.labels, truth).f1_50 < score_instances(prediction, truth).f1_50


def test_a_window_is_right_all_over(truth: Labels, generator: np.random.Generator) -> None:
    prediction = np.where(truth % 3 == 0, truth, 0).astype(np.int32)
    habits = STEADY.model_copy(update={"style": "window"})
    found = correct_instances(prediction, truth, 12, habits, generator)
    assert found.accepted is not None
    assert 0 < found.corrections <= 12
    assert 0 < found.accepted.mean() < 1
    inside = ndimage.binary_erosion(found.accepted, iterations=12)
    assert score_instances(np.where(inside, found.labels, 0), np.where(inside, truth, 0)).f1_75 == 1


def test_the_same_person_does_the_same(truth: Labels) -> None:
    first, again, other = (
        correct_instances(
            np.zeros_like(truth), truth, 9, Habits(wrong=0.2), np.random.default_rng(seed)
        ).labels
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_slices_of_classes(generator: np.random.Generator) -> None:
    place = np.indices((16, 40, 40)) - np.array([8, 20, 20])[:, None, None, None]
    truth = (np.linalg.norm(place, axis=0) < 8).astype(np.int32)
    truth[(truth > 0) & (place[2] > 0)] = 2
    prediction = np.roll(truth, 3, axis=1)
    found = correct_slices(prediction, truth, 3, STEADY, generator)
    assert found.accepted is not None
    painted = np.flatnonzero(found.accepted.any(axis=(1, 2)))
    assert found.corrections == painted.size == 3
    assert (np.diff(painted) > 1).all()
    np.testing.assert_array_equal(found.labels[painted], truth[painted])
    untouched = ~found.accepted
    np.testing.assert_array_equal(found.labels[untouched], prediction[untouched])
    slipped = correct_slices(prediction, truth, 3, Habits(wrong=1), generator)
    assert slipped.wrong == 3
    assert correct_slices(truth, truth, 3, STEADY, generator).corrections == 0


def test_the_diameter_that_a_person_sets() -> None:
    labels = np.zeros((64, 64), np.int32)
    for number, side in enumerate((4, 10, 30), start=1):
        labels[20 * number - 20 : 20 * number - 20 + side, :side] = number
    exact = seen_diameter(labels, Habits(diameter_error=0), np.random.default_rng(0))
    assert exact == pytest.approx(2 * np.sqrt(100 / np.pi))
    rough = [seen_diameter(labels, Habits(), np.random.default_rng(n)) for n in range(200)]
    assert 0.08 < np.std(np.log(np.array(rough, float))) < 0.12
    assert seen_diameter(np.zeros_like(labels), Habits(), np.random.default_rng(0)) is None
