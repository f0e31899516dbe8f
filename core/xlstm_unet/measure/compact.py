"""Label numbers small enough to count with."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.errors import ImageError


def compact_labels(labels: ArrayLike, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Renumber labels where they are so large that tables over them would not fit.

    Parameters
    ----------
    labels
        Integers from 0, any shape.
    what
        What they are, for messages.

    Returns
    -------
    compact
        Same shape, integers; ``values[compact]`` are the labels.
    values
        Label of each number; the first is 0.

    Raises
    ------
    ImageError
        If labels are no integers from 0.
    """
    array = np.asarray(labels)
    if array.dtype.kind not in "iu" or (array.size and int(array.min()) < 0):
        raise ImageError(f"Labels of the {what} have dtype {array.dtype}, expected integers from 0.")
    largest = int(array.max()) if array.size else 0
    if largest <= max(array.size, 2**16):
        return array, np.arange(largest + 1, dtype=np.int64)
    values, index = np.unique(array, return_inverse=True)
    if values[0] != 0:
        values, index = np.concatenate([np.zeros(1, values.dtype), values]), index + 1
    return index.reshape(array.shape), values.astype(np.int64)
