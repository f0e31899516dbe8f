"""The errors of a prediction of objects, grouped as a person would fix them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.measure import match_instances

GOOD_IOU = 0.7
"""A person leaves an object alone whose outline agrees this well."""
_PART_OF_TRUE, _PART_OF_PREDICTED = 0.25, 0.5
"""Shares of a true or a predicted object in common from which the one disturbs drawing the other."""


@dataclass(frozen=True)
class Error:
    """One thing to fix: predicted objects that go, and true ones to be drawn in their place.

    Parameters
    ----------
    predicted
        Labels to erase; empty for a missed object.
    true
        True objects to draw; empty for a false one.
    severity
        Pixels that are wrong.
    centre
        Middle of what is drawn (or erased), in pixels.
    """

    predicted: tuple[int, ...]
    true: tuple[int, ...]
    severity: float
    centre: tuple[float, ...]

    @property
    def cost(self) -> int:
        """Objects that a person touches for it."""
        return max(1, len(self.true))


def find_errors(prediction: NDArray[np.int32], truth: NDArray[np.int32]) -> list[Error]:
    """Return what is wrong with a prediction: missed, false, merged, torn and badly outlined objects.

    Predicted and true objects that share much belong to one error: a merged pair is one error of two true
    objects. A predicted object that covers a whole crowd is one error of many true objects.

    Parameters
    ----------
    prediction, truth
        int32 labels of the same shape; 0 is background.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    matches = match_instances(prediction, truth)
    good = matches.pairs[matches.iou >= GOOD_IOU]
    n_pred, n_true = int(prediction.max(initial=0)) + 1, int(truth.max(initial=0)) + 1
    pred_area = np.bincount(prediction.ravel(), minlength=n_pred)
    true_area = np.bincount(truth.ravel(), minlength=n_true)
    bad_pred, bad_true = pred_area > 0, true_area > 0
    bad_pred[0] = bad_true[0] = False
    bad_pred[good[:, 0]] = False
    bad_true[good[:, 1]] = False
    codes, common = np.unique(
        prediction.ravel().astype(np.int64) * n_true + truth.ravel(), return_counts=True
    )
    p, t = np.divmod(codes, n_true)
    linked = bad_pred[p] & bad_true[t]
    linked &= (common > _PART_OF_TRUE * true_area[t]) | (common > _PART_OF_PREDICTED * pred_area[p])
    edges = coo_array((np.ones(linked.sum()), (p[linked], n_pred + t[linked])), shape=(n_pred + n_true,) * 2)
    component = connected_components(edges, directed=False)[1]
    nodes = np.concatenate([np.flatnonzero(bad_pred), n_pred + np.flatnonzero(bad_true)])
    common_of = dict(zip(codes.tolist(), common.tolist(), strict=True))
    if not nodes.size:
        return []
    true_centres, pred_centres = _centres(truth, n_true), _centres(prediction, n_pred)
    errors = []
    order = np.argsort(component[nodes], kind="stable")
    nodes = nodes[order]
    starts = np.flatnonzero(np.diff(component[nodes], prepend=-1))
    for group in np.split(nodes, starts[1:]):
        predicted = tuple(int(node) for node in group if node < n_pred)
        true = tuple(int(node) - n_pred for node in group if node >= n_pred)
        agreed = max((common_of.get(a * n_true + b, 0) for a in predicted for b in true), default=0)
        wrong = int(pred_area[list(predicted)].sum() + true_area[list(true)].sum()) - 2 * agreed
        centres = true_centres[list(true)] if true else pred_centres[list(predicted)]
        middle = tuple(float(c) for c in centres.mean(axis=0))
        errors.append(Error(predicted, true, float(wrong), middle))
    return errors


def _centres(labels: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """Mean coordinates of each label, (count, axes); 0 where it has no pixel."""
    flat = labels.ravel()
    sizes = np.maximum(np.bincount(flat, minlength=count), 1)
    lines: tuple[NDArray[np.int64], ...] = np.indices(labels.shape, sparse=True)
    sums = [
        np.bincount(flat, weights=np.broadcast_to(line, labels.shape).ravel(), minlength=count)
        for line in lines
    ]
    return np.stack(sums, axis=1) / sizes[:, None]
