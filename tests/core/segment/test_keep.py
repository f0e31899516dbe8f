"""What a user corrected or accepted survives the next segmentation as it is."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.images import read_labels
from xlstm_unet.samples import SAMPLES
from xlstm_unet.segment.keep import keep_classes, keep_objects


def _row(text: str) -> np.ndarray:
    return np.array([[int(letter, 36) if letter != "." else 0 for letter in text]])


@pytest.mark.parametrize(
    ("fresh", "edited", "states", "kept"),
    [
        (".11222.", ".11.22.", ".11....", ".11bbb."),  # corrected: pasted; untouched 2 is the model's again
        (".111.22", ".......", ".111...", ".....bb"),  # deleted stays deleted
        ("..11...", "2222...", "1111...", "2222..."),  # reshaped
        ("1111...", ".22....", ".11....", "a22a..."),  # half of the fresh object is free: that half stays
        ("..111..", ".......", "....222", "..aa..."),  # accepted background is background
        ("..111..", ".......", "....1..", "..aaa.."),  # the ring of a correction takes nothing
        ("..11...", "1111111", "22.....", "..aa..."),  # an accepted box that holds little of an object
    ],
)
def test_rows(fresh: str, edited: str, states: str, kept: str) -> None:
    result = keep_objects(_row(fresh), _row(edited), _row(states).astype(np.uint8), first=10)
    np.testing.assert_array_equal(result, _row(kept))


def test_real_objects_stay_pixel_for_pixel() -> None:
    truth = read_labels(SAMPLES[0].labels)
    fresh = np.roll(truth, 3, axis=1)  # a model that is three pixels off
    edited = truth.copy()
    edited[edited == 5] = 0
    states = np.zeros(truth.shape, np.uint8)
    states[np.isin(truth, (3, 5, 7))] = 1
    states[:60, :60] = 2
    kept = keep_objects(fresh, edited, states)
    for label in (3, 7):
        np.testing.assert_array_equal(kept == label, truth == label)
    assert not kept[truth == 5].any() or (kept[truth == 5] > 0).mean() < 0.5
    np.testing.assert_array_equal(kept[:50, :50] > 0, edited[:50, :50] > 0)
    assert kept.dtype == np.int32
    assert len(np.unique(kept)) > 0.8 * len(np.unique(truth))


def test_large_numbers_and_an_empty_plane() -> None:
    edited = np.array([[0, 2**30, 2**30, 0]])
    states = np.array([[0, 1, 1, 0]], np.uint8)
    kept = keep_objects(np.zeros((1, 4), np.uint16), edited, states)
    np.testing.assert_array_equal(kept, edited)
    none = np.zeros((1, 4), np.int32)
    assert not keep_objects(none, none, none.astype(np.uint8)).any()


def test_planes_of_a_stack_are_numbered_together() -> None:
    fresh, edited = _row("11.22"), _row("3....")
    assert keep_objects(fresh, edited, _row(".....").astype(np.uint8), first=100).tolist() == [
        [100, 100, 0, 101, 101]
    ]


def test_classes() -> None:
    kept = keep_classes(_row("1122"), _row("2011"), _row("1100").astype(np.uint8))
    assert kept.tolist() == [[2, 0, 2, 2]]


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one"):
        keep_objects(_row("12"), _row("123"), _row("12").astype(np.uint8))
