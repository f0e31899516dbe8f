"""Pasting a user's work into a fresh segmentation: what was corrected or accepted stays as it is.

::

    edited   . 1 1 . 2 2 .        states   . 1 1 . 0 0 .        (1 was corrected, 2 never looked at)
    fresh    . 7 7 7 8 8 8        kept     . 1 1 . 4 4 4        7 gives way to 1, 8 is numbered on
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

ACCEPTED = 2
"""State of a pixel that the user marked right; 1 is corrected, 0 untouched."""

_SMALL = 2**24
"""Labels up to here are counted in a table, larger ones by sorting."""


def keep_objects(
    fresh: NDArray[np.integer],
    edited: NDArray[np.integer],
    states: NDArray[np.uint8],
    first: int | None = None,
) -> NDArray[np.int32]:
    """Return the fresh objects with the user's own pasted in, numbers and pixels as they were.

    An object of the user's is kept whole if more than half of it is corrected or accepted. A fresh object
    gives way if more than half of it lies on kept objects or on background that the user made or accepted;
    otherwise it loses only the pixels that kept objects and accepted background need.

    Parameters
    ----------
    fresh
        Labels that a model gave, one plane or volume.
    edited
        Labels as the user left them, of the same shape.
    states
        0 untouched, 1 corrected, 2 accepted, of the same shape.
    first
        Number of the first fresh object, for planes of one stack; by default the next after the user's.

    Returns
    -------
    ndarray
        int32, of the same shape.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    _check(fresh, edited, states)
    known = states > 0
    values, own = _compact(edited)
    size, settled = np.bincount(own.ravel()), np.bincount(own[known], minlength=len(values))
    keep = (2 * settled > size) & (values != 0)
    mine = keep[own]
    fresh_values, other = _compact(fresh)
    lost = mine | (known & (edited == 0))
    area, gone = np.bincount(other.ravel()), np.bincount(other[lost], minlength=len(fresh_values))
    stay = (2 * gone <= area) & (fresh_values != 0)
    first = int(edited.max(initial=0)) + 1 if first is None else first
    numbers = np.where(stay, fresh_values.astype(np.int64) + (first - 1), 0).astype(np.int32)
    result: NDArray[np.int32] = numbers[other]
    result[(states == ACCEPTED) & (edited == 0)] = 0
    result[mine] = edited[mine]
    return result


def keep_classes(
    fresh: NDArray[np.integer], edited: NDArray[np.integer], states: NDArray[np.uint8]
) -> NDArray[np.int32]:
    """Return fresh classes with every corrected or accepted pixel as the user left it.

    Parameters
    ----------
    fresh, edited, states
        As for `keep_objects`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    _check(fresh, edited, states)
    return np.where(states > 0, edited, fresh).astype(np.int32)


def _compact(labels: NDArray[np.integer]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the values that occur, 0 first, and for each pixel the place of its value among them."""
    largest = int(labels.max(initial=0))
    if largest >= _SMALL:
        values, places = np.unique(np.append(labels.ravel(), 0), return_inverse=True)
        return values, places[:-1].reshape(labels.shape)
    present = np.zeros(largest + 1, bool)
    present[labels] = True
    present[0] = True
    table = np.cumsum(present, dtype=np.int32) - 1
    return np.flatnonzero(present), table[labels]


def _check(*arrays: NDArray[Any]) -> None:
    shapes = {array.shape for array in arrays}
    if len(shapes) != 1:
        raise ValueError(f"shapes are {sorted(shapes)}, expected one")
