"""Joining objects of neighbouring slices: 3D labels from a 2D model.

::

    slice z      . 1 1 . 2 2 .          1 and 5 share most of their pixels: one object
    slice z+1    . 5 5 . . 6 6          2 and 6 share too few: 6 stays an object of its own
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.progress import Cancel, check_cancelled

MIN_OVERLAP = 0.25
"""Intersection over union from which two objects of neighbouring slices are the same."""


def stitch_slices(
    labels: NDArray[np.integer], *, min_overlap: float = MIN_OVERLAP, cancel: Cancel | None = None
) -> NDArray[np.int32]:
    """Give objects that overlap from slice to slice one number.

    Each object of a slice continues at most one object of the slice before, the one it overlaps most, and is
    continued by at most one.

    Parameters
    ----------
    labels
        (Z, Y, X) labels in which every slice is numbered on its own; 0 is background.
    min_overlap
        Intersection over union, in (0, 1], from which two objects are joined.
    cancel
        Asked once a slice.

    Returns
    -------
    ndarray
        int32 (Z, Y, X), numbered from 1 without gaps in the order of appearance.

    Raises
    ------
    ValueError
        If ``labels`` has no three axes or ``min_overlap`` is out of range.
    CancelledError
        If ``cancel`` says so.
    """
    if labels.ndim != 3:
        raise ValueError(f"labels have {labels.ndim} axes, expected 3 (Z, Y, X)")
    if not 0 < min_overlap <= 1:
        raise ValueError(f"min_overlap is {min_overlap}, expected more than 0 and at most 1")
    joined = np.zeros(labels.shape, np.int32)
    used = 0
    for z, plane in enumerate(labels):
        check_cancelled(cancel)
        values, compact = np.unique(plane, return_inverse=True)
        compact = compact.reshape(plane.shape)
        numbers = np.zeros(len(values), np.int32)
        if z:
            _continue_objects(joined[z - 1], compact, values, numbers, min_overlap)
        fresh = (numbers == 0) & (values != 0)
        numbers[fresh] = np.arange(used + 1, used + 1 + int(fresh.sum()))
        used += int(fresh.sum())
        joined[z] = numbers[compact]
    return joined


def _continue_objects(
    before: NDArray[np.int32],
    compact: NDArray[np.intp],
    values: NDArray[np.integer],
    numbers: NDArray[np.int32],
    min_overlap: float,
) -> None:
    """Write into ``numbers`` the number from ``before`` of every object of this slice that continues one."""
    both = (before != 0) & (values[compact] != 0)
    if not both.any():
        return
    old_values, old = np.unique(before, return_inverse=True)
    old = old.reshape(before.shape)
    pairs, shared = np.unique(old[both].astype(np.int64) * len(values) + compact[both], return_counts=True)
    old_index, new_index = np.divmod(pairs, len(values))
    union = np.bincount(old.ravel())[old_index] + np.bincount(compact.ravel())[new_index] - shared
    overlap = shared / union
    taken: set[int] = set()
    for pair in np.argsort(-overlap, kind="stable"):
        if overlap[pair] < min_overlap:
            break
        number, place = int(old_values[old_index[pair]]), int(new_index[pair])
        if number not in taken and numbers[place] == 0:
            numbers[place] = number
            taken.add(number)
