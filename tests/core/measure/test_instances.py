"""Scores of objects against a plain double loop, and the cases at the edge."""

from __future__ import annotations

import time
from dataclasses import asdict

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from xlstm_unet.errors import ImageError
from xlstm_unet.images import read_labels
from xlstm_unet.measure import match_instances, mean_scores, score_instances


def brute_force(prediction, truth):
    """Scores by definition: every pair of objects, best assignment at each threshold."""
    pred_labels, true_labels = (np.setdiff1d(a, 0) for a in (prediction, truth))
    iou = np.zeros((len(pred_labels), len(true_labels)))
    for i, p in enumerate(pred_labels):
        for j, t in enumerate(true_labels):
            iou[i, j] = np.sum((prediction == p) & (truth == t)) / np.sum((prediction == p) | (truth == t))
    ap, f1, pq = {}, {}, 1.0
    for step in range(10, 20):
        threshold = step / 20 - 1e-9
        rows, columns = linear_sum_assignment(-np.where(iou >= threshold, 1 + iou, 0))
        matched = iou[rows, columns][iou[rows, columns] >= threshold]
        n, objects = len(matched), len(pred_labels) + len(true_labels)
        ap[step] = n / (objects - n) if objects else 1.0
        f1[step] = 2 * n / objects if objects else 1.0
        if step == 10 and objects:
            pq = 2 * matched.sum() / objects
    return {
        "f1_50": f1[10],
        "f1_75": f1[15],
        "f1_90": f1[18],
        "ap_50": ap[10],
        "ap_50_95": float(np.mean(list(ap.values()))),
        "pq": pq,
        "n_true": len(true_labels),
        "n_pred": len(pred_labels),
    }


def blocky(generator, shape, objects):
    """Labels of overlapping random boxes, some of odd numbers."""
    labels = np.zeros(shape, np.int32)
    for _ in range(objects):
        corner = [generator.integers(0, n - 1) for n in shape]
        size = generator.integers(2, 7, len(shape))
        labels[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = generator.choice(
            [1, 2, 3, 50, 999]
        )
    return labels


@pytest.mark.parametrize("shape", [(14, 15), (7, 8, 9)], ids=["2d", "3d"])
@pytest.mark.parametrize("seed", range(12))
def test_scores_agree_with_a_double_loop(shape, seed):
    generator = np.random.default_rng(seed)
    truth = blocky(generator, shape, 6)
    prediction = (
        blocky(generator, shape, 6) if seed % 2 else np.where(generator.random(shape) < 0.85, truth, 0)
    )
    assert asdict(score_instances(prediction, truth)) == pytest.approx(brute_force(prediction, truth))


@pytest.mark.parametrize("name", ["fluo_small", "hist_pink_he"])
def test_real_labels_shifted_by_two_pixels(data, name):
    truth = read_labels(data / "nuclei" / "labels" / f"{name}.png")
    prediction = np.roll(truth, 2, axis=1)
    scores = score_instances(prediction, truth)
    assert asdict(scores) == pytest.approx(brute_force(prediction, truth))
    assert 0.0 < scores.ap_50_95 < scores.ap_50 < 1.01


def test_equal_labels_score_1_whatever_their_numbers(data):
    truth = read_labels(data / "phase_cells" / "labels" / "small_compact.png")
    renumbered = np.where(truth > 0, 2**31 - 1 - truth, 0)
    scores = score_instances(renumbered, truth)
    assert set(asdict(scores).values()) == {1.0, 85}
    matches = match_instances(renumbered, truth)
    assert (matches.pairs.sum(axis=1) == 2**31 - 1).all()


@pytest.mark.parametrize(
    ("prediction", "truth", "f1"),
    [([[0, 0]], [[0, 0]], 1.0), ([[1, 0]], [[0, 0]], 0.0), ([[0, 0]], [[1, 0]], 0.0), ([[3]], [[4]], 1.0)],
    ids=["both-empty", "no-truth", "no-prediction", "one-pixel"],
)
def test_empty_cases(prediction, truth, f1):
    scores = score_instances(prediction, truth)
    assert (scores.f1_50, scores.ap_50_95, scores.pq) == (f1, f1, f1)


def test_exactly_a_half_counts_once():
    scores = score_instances([[1, 1, 0]], [[1, 2, 0]])
    assert scores.f1_50 == pytest.approx(2 / 3)
    assert scores.f1_75 == 0
    split = score_instances([[1, 2, 0]], [[1, 1, 0]])
    assert split.f1_50 == pytest.approx(2 / 3)


@pytest.mark.parametrize("hundredths", range(50, 100, 5))
def test_thresholds_include_their_own_value(hundredths):
    truth = np.ones((1, 100), int)
    prediction = np.zeros((1, 100), int)
    prediction[0, :hundredths] = 1
    expected = (hundredths - 45) // 5 / 10
    assert score_instances(prediction, truth).ap_50_95 == pytest.approx(expected)


def test_a_hundred_thousand_objects_take_seconds():
    grid = np.arange(1, 330 * 330 + 1).reshape(330, 330)
    truth = np.kron(grid, np.ones((7, 7), int)).astype(np.int32)
    prediction = np.roll(truth, 1, axis=0)
    started = time.perf_counter()
    scores = score_instances(prediction, truth)
    assert time.perf_counter() - started < 10
    assert scores.n_true == 108_900
    assert scores.f1_75 == pytest.approx(1, abs=0.01)  # 42 of 56 pixels in common: exactly .75


def test_means_over_images():
    one, half = score_instances([[1, 0]], [[1, 0]]), score_instances([[1, 0]], [[0, 0]])
    mean = mean_scores([one, half])
    assert mean["f1_50"] == 0.5
    assert mean["n_pred"] == 1
    with pytest.raises(ValueError, match="no scores"):
        mean_scores([])


@pytest.mark.parametrize(
    ("prediction", "truth", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"shape \(2, 3\) and truth of shape \(3, 2\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "prediction have dtype float64"),
        (np.zeros((2, 3), int), np.full((2, 3), -1), "truth"),
    ],
)
def test_what_cannot_be_compared_is_refused(prediction, truth, message):
    with pytest.raises(ImageError, match=message):
        score_instances(prediction, truth)
