"""Labels of slices become labels of a volume."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError
from xlstm_unet.segment.stitch import stitch_slices


def _ball(shape: tuple[int, int, int], centre: tuple[int, int, int], radius: float) -> np.ndarray:
    grid = np.indices(shape).reshape(3, -1).T - np.array(centre)
    return ((grid**2).sum(1) <= radius**2).reshape(shape)


def _shuffled_slices(volume: np.ndarray, seed: int = 0) -> np.ndarray:
    """Number every slice on its own, in random order and with gaps."""
    rng = np.random.default_rng(seed)
    out = np.zeros(volume.shape, np.int64)
    for z, plane in enumerate(volume):
        for value, number in zip(np.unique(plane[plane > 0]), rng.permutation(500)[:50] + 1, strict=False):
            out[z][plane == value] = number
    return out


def test_balls_come_back_whole() -> None:
    volume = np.zeros((24, 48, 64), np.int32)
    for number, (z, y, x) in enumerate([(8, 12, 12), (15, 30, 40), (9, 30, 14), (12, 12, 45)], start=1):
        volume[_ball(volume.shape, (z, y, x), 7.3)] = number
    joined = stitch_slices(_shuffled_slices(volume), min_overlap=0.1)
    assert joined.dtype == np.int32
    assert sorted(np.unique(joined)) == [0, 1, 2, 3, 4]
    pairs = {(a, b) for a, b in zip(volume.ravel(), joined.ravel(), strict=True)}
    assert len(pairs) == 5  # one number for one ball, and background stays background


def test_an_object_continues_only_one() -> None:
    labels = np.zeros((2, 4, 12), np.uint16)
    labels[0, :, :10] = 3
    labels[1, :, :5] = 1
    labels[1, :, 6:10] = 2
    joined = stitch_slices(labels)
    assert joined[1, 0, 0] == joined[0, 0, 0]
    assert joined[1, 0, 7] not in (0, joined[0, 0, 0])


def test_too_little_overlap_is_a_new_object() -> None:
    labels = np.zeros((2, 1, 20), np.uint8)
    labels[0, 0, :10] = 1
    labels[1, 0, 8:18] = 1
    assert stitch_slices(labels).max() == 2
    assert stitch_slices(labels, min_overlap=0.1).max() == 1


def test_a_gap_ends_an_object() -> None:
    labels = np.ones((3, 5, 5), np.int32)
    labels[1] = 0
    assert list(stitch_slices(labels)[:, 0, 0]) == [1, 0, 2]


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 4, 4), (3, 4, 4)], ids=str)
def test_empty_labels(shape: tuple[int, int, int]) -> None:
    joined = stitch_slices(np.zeros(shape, np.uint8))
    assert joined.shape == shape
    assert not joined.any()


def test_wrong_input_and_cancel() -> None:
    with pytest.raises(ValueError, match="expected 3"):
        stitch_slices(np.zeros((4, 4), np.int32))
    with pytest.raises(ValueError, match="min_overlap"):
        stitch_slices(np.zeros((1, 4, 4), np.int32), min_overlap=0)
    with pytest.raises(CancelledError):
        stitch_slices(np.zeros((2, 4, 4), np.int32), cancel=lambda: True)
