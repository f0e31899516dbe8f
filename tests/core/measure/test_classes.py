"""Scores of classes against cases worked out by hand and against a search over all pairs of points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from xlstm_unet.errors import ImageError
from xlstm_unet.images import read_labels
from xlstm_unet.measure import score_classes
from xlstm_unet.spec import Label

ONE = (Label(value=1, name="thing"),)


def surface_points(mask, spacing):
    """Pixels with a neighbour outside, found by looking at each neighbour in turn."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(mask.ndim):
        for step in (1, -1):
            inner &= np.roll(padded, step, axis)
    return np.argwhere(padded & ~inner) * spacing


def independent(predicted, true, spacing):
    first, second = (surface_points(mask, spacing) for mask in (predicted, true))
    there, back = cKDTree(second).query(first)[0], cKDTree(first).query(second)[0]
    return (
        2 * (predicted & true).sum() / (predicted.sum() + true.sum()),
        ((there <= 1).sum() + (back <= 1).sum()) / (len(there) + len(back)),
        max(np.percentile(there, 95), np.percentile(back, 95)),
    )


def ball(shape, centre, radius, spacing):
    grid = np.indices(shape).astype(float)
    return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) <= radius**2


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.4, 0.9, 1.3)])
@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_nearest_points(spacing, seed):
    generator = np.random.default_rng(seed)
    shape = (18, 30, 32)
    masks = []
    for _ in range(2):
        centre = [n / 2 + generator.uniform(-2, 2) for n in shape]
        masks.append(
            ball(shape, centre, generator.uniform(5, 9), spacing) | (generator.random(shape) < 0.001)
        )
    scores = score_classes(masks[0].astype(int), masks[1].astype(int), ONE, spacing)["thing"]
    assert (scores.dice, scores.nsd_1mm, scores.hd95_mm) == pytest.approx(
        independent(*masks, np.array(spacing))
    )


def test_a_shifted_cube():
    truth = np.zeros((30, 30, 30), int)
    truth[5:15, 5:15, 5:15] = 1
    shifted = np.roll(truth, 3, axis=0)
    scores = score_classes(shifted, truth, ONE, (2.0, 1.0, 1.0))["thing"]
    assert scores.dice == pytest.approx(0.7)
    assert scores.hd95_mm == pytest.approx(6.0)
    assert scores.nsd_1mm == pytest.approx(
        independent(shifted == 1, truth == 1, np.array([2.0, 1.0, 1.0]))[1]
    )


@pytest.mark.parametrize(("gap", "nsd"), [(1, 1.0), (2, 0.0)])
def test_nested_balls_lie_a_known_distance_apart(gap, nsd):
    shape, centre = (64, 64), (32, 32)
    inner, outer = (ball(shape, centre, r, (1, 1)).astype(int) for r in (20, 20 + gap))
    scores = score_classes(inner, outer, ONE, (1.0, 1.0))["thing"]
    assert scores.hd95_mm == pytest.approx(gap, abs=0.42)
    assert scores.nsd_1mm == pytest.approx(nsd, abs=0.35)
    assert scores.dice == pytest.approx(2 * 20**2 / (20**2 + (20 + gap) ** 2), abs=0.01)


def test_parallel_plates_are_exact():
    first, second = np.zeros((12, 5, 5), int), np.zeros((12, 5, 5), int)
    first[3], second[7] = 1, 1
    for step, nsd in ((0.25, 1.0), (0.26, 0.0)):
        scores = score_classes(first, second, ONE, (step, 1.0, 1.0))["thing"]
        assert scores.hd95_mm == pytest.approx(4 * step)
        assert scores.nsd_1mm == nsd
        assert scores.dice == 0


def test_empty_cases():
    empty, full = np.zeros((4, 5, 7), int), np.ones((4, 5, 7), int)
    both = score_classes(empty, empty, ONE, (1, 1, 1))["thing"]
    assert (both.dice, both.nsd_1mm, both.hd95_mm) == (1, 1, 0)
    diagonal = math.sqrt((3 * 2) ** 2 + 4**2 + 6**2)
    for prediction, truth in ((empty, full), (full, empty)):
        scores = score_classes(prediction, truth, ONE, (2, 1, 1))["thing"]
        assert (scores.dice, scores.nsd_1mm, scores.hd95_mm) == pytest.approx((0, 0, diagonal))
    same = score_classes(full, full, ONE, (1, 1, 1))["thing"]
    assert (same.dice, same.nsd_1mm, same.hd95_mm) == (1, 1, 0)


def test_every_class_of_a_real_scan(data):
    truth = read_labels(data / "hippocampus" / "labels" / "hippocampus_125.nii.gz")
    labels = (Label(value=1, name="anterior"), Label(value=2, name="posterior"), Label(value=3, name="none"))
    scores = score_classes(np.roll(truth, 1, axis=2), truth, labels, (1.0, 1.0, 1.0))
    assert list(scores) == ["anterior", "posterior", "none"]
    assert 0.7 < scores["anterior"].dice < 0.95
    assert scores["posterior"].hd95_mm == pytest.approx(1.0, abs=0.01)
    assert scores["posterior"].nsd_1mm == 1.0
    assert scores["none"].dice == 1.0


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [((4, 5), (1, 1), "differ"), ((5, 4), (1,), "expected 2 positive"), ((5, 4), (1, 0), "positive")],
)
def test_what_cannot_be_compared_is_refused(shape, spacing, message):
    with pytest.raises(ImageError, match=message):
        score_classes(np.zeros(shape, int), np.zeros((5, 4), int), ONE, spacing)
