"""Renumbering labels: nothing is lost, nothing is allocated by the largest number."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.measure.compact import compact_labels


@pytest.mark.parametrize(
    "labels",
    [
        np.array([[0, 3], [3, 1]]),
        np.array([2**31 - 1, 5]),
        np.array([7, 0, 2**40], np.uint64),
        np.zeros((0, 3), int),
    ],
    ids=["small", "no-background", "64-bit", "empty"],
)
def test_labels_can_be_found_again(labels):
    compact, values = compact_labels(labels, "truth")
    assert values[0] == 0
    assert (values[compact] == labels).all()
    assert len(values) <= 2**16 + 1
    assert ((compact == 0) == (labels == 0)).all()


@pytest.mark.parametrize("labels", [[[0.5]], [[-1]], [[True]]])
def test_what_are_no_labels_is_refused(labels):
    with pytest.raises(ImageError, match="truth"):
        compact_labels(labels, "truth")
