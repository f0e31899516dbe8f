"""What was changed, and what is known because of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from xlstm_unet.errors import CorrectionsError
from xlstm_unet.learn.supervision import ACCEPTED, CORRECTED, KINDS, RING, find_changes, supervise
from xlstm_unet.learn.targets import instance_targets


@pytest.fixture(scope="module")
def truth(nuclei) -> np.ndarray:
    return nuclei[1]


def known_of(prediction, labels, accepted=None, task="instances"):
    found = find_changes(prediction, labels, accepted, task)
    settled = np.zeros(labels.shape, bool) if accepted is None else accepted
    return found, supervise(labels, found.changed, found.removed, settled, task)


def largest(truth, count):
    sizes = np.bincount(truth.ravel())
    sizes[0] = 0
    return np.argsort(sizes)[::-1][:count].tolist()


def kinds(found):
    return {kind: found.counts[kind] for kind in KINDS if found.counts[kind]}


def test_other_numbers_are_no_correction(truth):
    numbers = np.random.default_rng(0).permutation(truth.max() + 1)
    numbers = np.where(numbers == 0, numbers[0], numbers)
    numbers[0] = 0
    found, supervision = known_of(truth, numbers[truth])
    assert found.counts["corrected"] == 0
    assert not supervision.known.any()


def test_an_added_object_is_known_whole_with_background_around_it(truth):
    number = largest(truth, 1)[0]
    mask = truth == number
    found, supervision = known_of(np.where(mask, 0, truth), truth)
    assert kinds(found) == {"added": 1}
    near = ndimage.distance_transform_edt(~mask) <= RING
    assert np.array_equal(supervision.known, mask | (near & (truth == 0)))
    assert supervision.distance_known[mask].all()
    # Targets are those of the whole image: they depend on the object's own mask alone.
    alone = instance_targets(np.where(mask, 1, 0))[1]
    assert np.allclose(supervision.distance[mask], alone[mask])


def test_pixels_of_untouched_neighbours_are_not_known():
    truth = np.zeros((24, 30), np.int32)
    truth[4:20, 3:14], truth[4:20, 14:26] = 1, 2
    _, supervision = known_of(np.where(truth == 1, 0, truth), truth)
    assert supervision.known[truth == 1].all()
    assert not supervision.known[truth == 2].any()
    assert supervision.known[10, 1]
    assert not supervision.known[10, 29]


def test_a_deleted_object_becomes_background(truth):
    number = largest(truth, 1)[0]
    found, supervision = known_of(truth, np.where(truth == number, 0, truth))
    assert kinds(found) == {"deleted": 1}
    assert np.array_equal(supervision.known, truth == number)
    assert not supervision.labels[supervision.known].any()


def test_split_merge_and_reshape_are_told_apart():
    one = np.zeros((40, 40), np.int32)
    one[5:15, 5:25] = 7
    two = one.copy()
    two[5:15, 15:25] = 9
    assert kinds(known_of(one, two)[0]) == {"split": 2}
    assert kinds(known_of(two, one)[0]) == {"merged": 1}
    larger = one.copy()
    larger[15:18, 5:25] = 7
    found, supervision = known_of(larger, one)
    assert kinds(found) == {"reshaped": 1}
    assert supervision.known[15:18, 5:25].all()
    assert not supervision.labels[15:18, 5:25].any()


def test_accepted_regions_are_known_and_cut_objects_have_no_distance():
    truth = np.zeros((40, 60), np.int32)
    truth[5:15, 5:15], truth[5:15, 25:45], truth[25:35, 5:15] = 1, 2, 3
    accepted = np.zeros(truth.shape, bool)
    accepted[:20, :35] = True
    found, supervision = known_of(truth, truth, accepted)
    assert found.counts["accepted"] == 1
    assert found.counts["corrected"] == 0
    assert np.array_equal(supervision.known, accepted)
    assert supervision.distance_known[10, 10]
    assert not supervision.distance_known[truth == 2].any()
    assert set(np.unique(found.states)) == {0, ACCEPTED}


def test_a_corrected_object_in_an_accepted_region_counts_as_corrected():
    truth = np.zeros((30, 30), np.int32)
    truth[5:15, 5:15] = 1
    accepted = np.ones(truth.shape, bool)
    found, _ = known_of(np.zeros_like(truth), truth, accepted)
    assert (found.states[truth == 1] == CORRECTED).all()
    assert (found.states[truth == 0] == ACCEPTED).all()


def test_two_cells_painted_with_one_number_are_two_objects_and_a_stray_dot_none():
    labels = np.zeros((40, 40), np.int32)
    labels[5:15, 5:15] = labels[25:35, 25:35] = 4
    labels[2, 38] = 4
    _, supervision = known_of(np.zeros_like(labels), labels)
    first, second = supervision.labels[10, 10], supervision.labels[30, 30]
    assert first != second
    assert not supervision.known[2, 38]
    assert supervision.distance_known[10, 10]


def test_volumes_are_the_same():
    truth = np.zeros((12, 20, 20), np.int32)
    truth[3:9, 4:12, 4:12], truth[3:9, 13:18, 4:12] = 1, 2
    found, supervision = known_of(np.where(truth == 1, 0, truth), truth)
    assert kinds(found) == {"added": 1}
    assert supervision.known[truth == 1].all()
    assert not supervision.known[truth == 2].any()
    assert supervision.known[1, 8, 8]
    assert supervision.distance[supervision.distance_known].max() == pytest.approx(1)


def test_classes_know_what_was_changed_and_a_little_around_it(data):
    from xlstm_unet.images import read_labels

    truth = np.asarray(read_labels(next((data / "hippocampus" / "labels").iterdir())), np.int32)
    prediction = truth.copy()
    where = tuple(int(axis.mean()) for axis in np.nonzero(truth == 1))
    box = tuple(slice(n - 2, n + 2) for n in where)
    prediction[box] = 2
    found, supervision = known_of(prediction, truth, task="classes")
    changed = prediction != truth
    assert found.counts["relabelled"] + found.counts["deleted"] >= 1
    assert supervision.known[changed].all()
    assert np.array_equal(supervision.labels, truth)
    assert supervision.known.sum() < 30 * changed.sum()
    assert (found.states[changed] == CORRECTED).all()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.zeros((4, 5), np.int32), "shape"),
        (np.zeros((4, 4), np.float32), "float32"),
        (np.full((4, 4), -1, np.int32), "-1"),
    ],
)
def test_arrays_that_are_no_labels_are_refused(labels, words):
    with pytest.raises(CorrectionsError, match=words):
        find_changes(np.zeros((4, 4), np.int32), labels, None, "instances")


def test_a_whole_image_corrected(truth):
    found, supervision = known_of(np.zeros_like(truth), truth, np.ones(truth.shape, bool))
    assert supervision.known.all()
    assert found.counts["added"] == len(np.unique(truth)) - 1
