"""How well predicted objects agree with true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.measure.compact import compact_labels

_THRESHOLD_STEPS = range(10, 20)
"""IoU thresholds .50, .55 to .95 in twentieths, so that they compare exactly."""


@dataclass(frozen=True)
class Matches:
    """Pairs of one predicted and one true object each that overlap by an IoU of at least a half.

    At most one true object overlaps a predicted one by more than a half, so the pairs are unique; at
    exactly a half the first in order of label is taken.
    """

    pairs: NDArray[np.int64]
    """(n, 2): predicted label, true label; in order of predicted label."""
    intersection: NDArray[np.int64]
    """(n,) pixels in common."""
    union: NDArray[np.int64]
    """(n,) pixels in either."""
    n_pred: int
    """Predicted objects in all."""
    n_true: int
    """True objects in all."""

    @property
    def iou(self) -> NDArray[np.float64]:
        """(n,) intersection over union."""
        return self.intersection / np.maximum(self.union, 1)


@dataclass(frozen=True)
class InstanceScores:
    """Scores of one image; every score lies between 0 and 1.

    With TP matched, FP unmatched predicted and FN unmatched true objects at an IoU threshold:
    F1 = 2 TP / (2 TP + FP + FN); AP = TP / (TP + FP + FN), as in the 2018 Data Science Bowl and StarDist;
    PQ = sum of the IoU of matches at .5 / (TP + FP / 2 + FN / 2) (Kirillov et al. 2019).
    Where truth and prediction both hold no object every score is 1.
    """

    f1_50: float
    f1_75: float
    f1_90: float
    ap_50: float
    ap_50_95: float
    """Mean of AP over the thresholds .50, .55 to .95."""
    pq: float
    n_true: int
    n_pred: int


def match_instances(prediction: ArrayLike, truth: ArrayLike) -> Matches:
    """Pair predicted with true objects that overlap by an IoU of at least .5.

    Parameters
    ----------
    prediction, truth
        Integer labels of the same shape, any dimension; 0 is background. Labels need not be consecutive.

    Raises
    ------
    ImageError
        If shapes differ or labels are no integers from 0.
    """
    predicted, pred_labels = compact_labels(prediction, "prediction")
    true, true_labels = compact_labels(truth, "truth")
    if predicted.shape != true.shape:
        raise ImageError(
            f"Prediction of shape {predicted.shape} and truth of shape {true.shape} differ.",
            "Both must lie on the same grid.",
        )
    predicted, true = predicted.ravel(), true.ravel()
    pred_areas = np.bincount(predicted, minlength=len(pred_labels))
    true_areas = np.bincount(true, minlength=len(true_labels))
    both = (predicted > 0) & (true > 0)
    codes = predicted[both].astype(np.int64) * len(true_labels) + true[both]
    codes, common = _counted(codes)
    pred_index, true_index = np.divmod(codes, len(true_labels))
    union = pred_areas[pred_index] + true_areas[true_index] - common
    half = 2 * common >= union
    pred_index, true_index, common, union = (part[half] for part in (pred_index, true_index, common, union))
    unique = _first_only(pred_index) & _first_only(true_index)
    return Matches(
        pairs=np.stack([pred_labels[pred_index[unique]], true_labels[true_index[unique]]], axis=1),
        intersection=common[unique].astype(np.int64),
        union=union[unique].astype(np.int64),
        n_pred=int(np.count_nonzero(pred_areas[1:])),
        n_true=int(np.count_nonzero(true_areas[1:])),
    )


def score_instances(prediction: ArrayLike, truth: ArrayLike) -> InstanceScores:
    """Score predicted objects against true ones.

    Parameters
    ----------
    prediction, truth
        Integer labels of the same shape, any dimension; 0 is background.

    Raises
    ------
    ImageError
        If shapes differ or labels are no integers from 0.

    Examples
    --------
    >>> score_instances([[1, 1, 0, 2]], [[7, 7, 0, 0]]).ap_50
    0.5
    """
    matches = match_instances(prediction, truth)
    objects = matches.n_pred + matches.n_true
    found = {
        step: int(np.count_nonzero(20 * matches.intersection >= step * matches.union))
        for step in _THRESHOLD_STEPS
    }
    f1 = {step: 2 * n / objects if objects else 1.0 for step, n in found.items()}
    ap = {step: n / (objects - n) if objects else 1.0 for step, n in found.items()}
    return InstanceScores(
        f1_50=f1[10],
        f1_75=f1[15],
        f1_90=f1[18],
        ap_50=ap[10],
        ap_50_95=sum(ap.values()) / len(ap),
        pq=float(2 * matches.iou.sum() / objects) if objects else 1.0,
        n_true=matches.n_true,
        n_pred=matches.n_pred,
    )


def mean_scores(scores: Sequence[InstanceScores]) -> dict[str, float]:
    """Average each score over images (every image counts the same); object numbers are averaged too.

    Raises
    ------
    ValueError
        If there is no image.
    """
    if not scores:
        raise ValueError("no scores to average")
    rows = [asdict(score) for score in scores]
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def _counted(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return distinct codes in order and how often each occurs; sorts runs of equal codes, not pixels."""
    if not codes.size:
        return codes, codes
    starts = np.concatenate([[0], np.flatnonzero(codes[1:] != codes[:-1]) + 1])
    lengths = np.diff(starts, append=codes.size)
    values, run = np.unique(codes[starts], return_inverse=True)
    return values, np.bincount(run, weights=lengths).astype(np.int64)


def _first_only(values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the first occurrence of each value."""
    first = np.zeros(len(values), dtype=np.bool_)
    first[np.unique(values, return_index=True)[1]] = True
    return first
