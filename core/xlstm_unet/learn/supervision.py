"""From a prediction and what a user made of it to what may be learnt.

Where the truth is: what the user changed is *corrected*, regions marked right are *accepted*, all else is
*untouched* and carries no loss. The difference of two label arrays says what was changed, never the strokes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from xlstm_unet.errors import CorrectionsError
from xlstm_unet.learn.targets import instance_targets
from xlstm_unet.measure import match_instances
from xlstm_unet.measure.compact import compact_labels

Task = Literal["instances", "classes"]

UNTOUCHED, CORRECTED, ACCEPTED = 0, 1, 2
KINDS = ("added", "deleted", "reshaped", "split", "merged", "relabelled")
RING = 3.0
"""Width of the background that a changed object teaches around itself, in pixels at the model's scale."""

_LINK = 0.25
"""Share of the smaller of two objects that must overlap for one to have become the other."""
_SPECK = 0.05
"""A piece of an object smaller than this share of its largest piece is a slip of the brush."""


@dataclass(frozen=True, eq=False)
class Changes:
    """What was changed in one plane or volume.

    Parameters
    ----------
    counts
        Number of changes of each of `KINDS`, ``corrected`` (all of them), ``accepted`` (objects wholly in
        accepted regions that were not changed), ``corrected_voxels``, ``accepted_voxels``.
    states
        uint8, shape of the labels: `UNTOUCHED`, `CORRECTED` or `ACCEPTED`.
    changed
        Boolean: voxels of changed objects (instances), or whose class was changed.
    removed
        Boolean: voxels of predicted objects that are now background.
    """

    counts: dict[str, int]
    states: NDArray[np.uint8]
    changed: NDArray[np.bool_]
    removed: NDArray[np.bool_]


def find_changes(
    prediction: NDArray[np.integer],
    labels: NDArray[np.integer],
    accepted: NDArray[np.bool_] | None,
    task: Task,
) -> Changes:
    """Compare labels with the prediction they were made from.

    Objects whose pixels are the same under another number are not changed.

    Parameters
    ----------
    prediction, labels
        Integers from 0, one plane or volume of the same shape.
    accepted
        Boolean, the same shape, or None.
    task
        Single objects, or one region per class.

    Raises
    ------
    CorrectionsError
        If the shapes differ or the arrays are no labels.
    """
    check_arrays(prediction, labels, accepted)
    if task == "instances":
        changed, removed, counts = _instance_changes(prediction, labels)
    else:
        changed, removed, counts = _class_changes(prediction, labels)
    states = np.zeros(labels.shape, np.uint8)
    whole = 0
    if accepted is not None:
        states[accepted] = ACCEPTED
        if task == "instances":
            outside = np.unique(labels[~accepted | changed])
            whole = int(np.setdiff1d(np.unique(labels[accepted]), np.append(outside, 0)).size)
    states[changed | removed] = CORRECTED
    return Changes(
        counts={
            **{kind: counts[kind] for kind in KINDS},
            "corrected": sum(counts.values()),
            "accepted": whole,
            "corrected_voxels": int(np.count_nonzero(states == CORRECTED)),
            "accepted_voxels": int(np.count_nonzero(states == ACCEPTED)),
        },
        states=states,
        changed=changed,
        removed=removed,
    )


def check_arrays(
    prediction: NDArray[np.integer], labels: NDArray[np.integer], accepted: NDArray[np.bool_] | None
) -> None:
    """Raise `CorrectionsError` unless these are label arrays and a mask of one shape."""
    for name, array in (("prediction", prediction), ("labels", labels)):
        if array.dtype.kind not in "iu":
            raise CorrectionsError(f"The {name} has dtype {array.dtype}, expected integers.")
        if array.size and int(array.min()) < 0:
            raise CorrectionsError(f"The {name} has labels from {int(array.min())}, expected 0 and more.")
    if prediction.shape != labels.shape:
        raise CorrectionsError(
            f"The prediction has shape {prediction.shape} and the labels {labels.shape}.",
            "Both must lie on the grid of the same image.",
        )
    if accepted is not None and (accepted.shape != labels.shape or accepted.dtype != np.bool_):
        raise CorrectionsError(
            f"The accepted regions have shape {accepted.shape} and dtype {accepted.dtype}, "
            f"expected {labels.shape} of booleans."
        )


@dataclass(frozen=True, eq=False)
class Supervision:
    """What one plane or volume teaches, at the model's scale.

    Parameters
    ----------
    labels
        int32: objects from 1, each in one piece, or classes; 0 is background.
    known
        Boolean: where the class is known.
    distance
        float32: normalised distance of each object (instances), else None.
    distance_known
        Boolean: where the distance is known; a part of ``known``.
    """

    labels: NDArray[np.int32]
    known: NDArray[np.bool_]
    distance: NDArray[np.float32] | None
    distance_known: NDArray[np.bool_]


def supervise(
    labels: NDArray[np.integer],
    changed: NDArray[np.bool_],
    removed: NDArray[np.bool_],
    accepted: NDArray[np.bool_],
    task: Task,
    *,
    sampling: Sequence[float] | None = None,
) -> Supervision:
    """Say what is known where.

    A changed object is known whole, and the background within `RING` of it; voxels of untouched neighbours
    are not. What was removed is background. An object that is only partly known has no known distance: it
    depends on the whole outline.

    Parameters
    ----------
    labels, changed, removed, accepted
        At the model's scale, of one shape; see `Changes`.
    task
        Single objects, or one region per class.
    sampling
        Relative size of a voxel along each axis; None where all are equal.
    """
    near = _near(changed, sampling)
    if task == "classes":
        known = changed | removed | accepted | near
        return Supervision(labels.astype(np.int32), known, None, np.zeros_like(known))
    objects, specks = _single_pieces(labels)
    background = objects == 0
    known = (changed | removed | accepted | (near & background)) & ~specks
    distance = instance_targets(objects)[1]
    cut = np.zeros(int(objects.max(initial=0)) + 1, bool)
    cut[np.unique(objects[~known])] = True
    cut[0] = False
    return Supervision(objects, known, distance, known & ~cut[objects])


def _instance_changes(
    prediction: NDArray[np.integer], labels: NDArray[np.integer]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Counter[str]]:
    before, before_values = compact_labels(prediction, "prediction")
    after, after_values = compact_labels(labels, "labels")
    matches = match_instances(before, after)
    same = matches.pairs[matches.intersection == matches.union]
    gone, new = np.ones(len(before_values), bool), np.ones(len(after_values), bool)
    gone[same[:, 0]], new[same[:, 1]] = False, False
    gone[0] = new[0] = False
    changed, vanished = new[after], gone[before]
    return changed, vanished & (after == 0), _kinds(before, after, changed, vanished)


def _kinds(
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    changed: NDArray[np.bool_],
    vanished: NDArray[np.bool_],
) -> Counter[str]:
    """Count what became of each other, as groups of old and new objects that overlap."""
    old, old_size = np.unique(before[vanished], return_counts=True)
    new, new_size = np.unique(after[changed], return_counts=True)
    both = changed & vanished
    first, second = np.searchsorted(old, before[both]), np.searchsorted(new, after[both])
    codes, common = np.unique(first * max(new.size, 1) + second, return_counts=True)
    first, second = np.divmod(codes, max(new.size, 1))
    linked = common >= _LINK * np.minimum(old_size[first], new_size[second])
    first, second = first[linked], second[linked] + old.size
    size = old.size + new.size
    graph = coo_array((np.ones(first.size), (first, second)), (size, size))
    groups, group = connected_components(graph, directed=False)
    n_old = np.bincount(group[: old.size], minlength=groups)
    n_new = np.bincount(group[old.size :], minlength=groups)
    counts: Counter[str] = Counter()
    for one, other in zip(n_old.tolist(), n_new.tolist(), strict=True):
        kind = "added" if one == 0 else "deleted" if other == 0 else "reshaped"
        if one == 1 and other > 1:
            kind = "split"
        elif one > 1 and other == 1:
            kind = "merged"
        counts[kind] += max(1, other) if kind in ("added", "split", "reshaped") else 1
    return counts


def _class_changes(
    prediction: NDArray[np.integer], labels: NDArray[np.integer]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Counter[str]]:
    differs = prediction != labels
    removed = differs & (labels == 0)
    masks = {
        "added": differs & (prediction == 0),
        "deleted": removed,
        "relabelled": differs & (prediction > 0) & (labels > 0),
    }
    counts = Counter({kind: int(ndimage.label(mask)[1]) for kind, mask in masks.items()})
    return differs & ~removed, removed, counts


def _near(changed: NDArray[np.bool_], sampling: Sequence[float] | None) -> NDArray[np.bool_]:
    """Voxels within `RING` of changed ones, these left out."""
    near = np.zeros_like(changed)
    if not changed.any():
        return near
    reach = int(np.ceil(RING))
    box = tuple(
        slice(max(0, int(where.min()) - reach), int(where.max()) + reach + 1) for where in np.nonzero(changed)
    )
    far = ndimage.distance_transform_edt(~changed[box], sampling=sampling)
    near[box] = (far <= RING) & ~changed[box]
    return near


def _single_pieces(labels: NDArray[np.integer]) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """Number every piece of every object anew, and mark specks that are much smaller than their object."""
    from skimage.measure import label

    found: NDArray[np.int64] = label(labels, background=0, connectivity=labels.ndim)  # type: ignore[no-untyped-call]
    pieces = found.astype(np.int32)
    count = int(pieces.max(initial=0))
    owner = np.zeros(count + 1, np.int64)
    owner[pieces] = labels
    values, owner = np.unique(owner, return_inverse=True)
    size = np.bincount(pieces.ravel(), minlength=count + 1)
    largest = np.zeros(values.size, np.int64)
    np.maximum.at(largest, owner[1:], size[1:])
    speck = size < _SPECK * largest[owner]
    speck[0] = False
    return pieces, speck[pieces]
