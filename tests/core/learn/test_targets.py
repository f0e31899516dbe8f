"""Targets of the instance head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from xlstm_unet.images import read_labels
from xlstm_unet.learn.targets import inner_boundary, instance_targets, object_diameters
from xlstm_unet.measure import score_instances
from xlstm_unet.segment.instances import decode_instances


def test_a_square_has_one_pixel_of_boundary_and_its_maximum_in_the_middle() -> None:
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 3
    classes, distance = instance_targets(labels)
    assert classes[4].tolist() == [0, 0, 2, 1, 1, 1, 2, 0, 0]
    np.testing.assert_allclose(distance[4], np.array([0, 0, 1, 2, 3, 2, 1, 0, 0]) / 3, rtol=1e-6)
    assert classes.dtype == np.uint8
    assert distance.dtype == np.float32


def test_touching_objects_are_parted_and_the_border_of_the_image_is_no_boundary() -> None:
    labels = np.array([[1, 1, 1, 2, 2, 2]] * 5, np.int32)
    classes, distance = instance_targets(labels)
    assert classes[0].tolist() == [1, 1, 2, 2, 1, 1]
    np.testing.assert_allclose(distance[0], np.array([3, 2, 1, 1, 2, 3]) / 3, rtol=1e-6)


def test_an_object_that_fills_the_image_has_no_boundary() -> None:
    classes, distance = instance_targets(np.ones((4, 5), np.int32))
    assert (classes == 1).all()
    assert (distance == 1).all()


def test_no_object() -> None:
    classes, distance = instance_targets(np.zeros((3, 4, 5), np.int32))
    assert not classes.any()
    assert not distance.any()


@pytest.mark.parametrize("name", ["fluo_tissue", "hist_purple_on_purple"])
def test_one_transform_for_all_objects_equals_one_for_each(data: Path, name: str) -> None:
    labels = read_labels(data / "nuclei" / "labels" / f"{name}.png")[:96, :96]
    distance = instance_targets(labels)[1]
    edge = inner_boundary(labels)
    for value in np.unique(labels[labels > 0]):
        own = labels == value
        depth = (
            ndimage.distance_transform_edt(~(own & edge)) + 1 if (own & edge).any() else np.ones(own.shape)
        )
        expected = np.where(own, depth, 0) / depth[own].max()
        np.testing.assert_allclose(distance[own], expected[own], rtol=1e-5)


def test_in_3d_boundaries_are_faces() -> None:
    labels = np.zeros((5, 5, 5), np.int32)
    labels[1:4, 1:4, 1:4] = 7
    classes, distance = instance_targets(labels)
    assert (classes == 1).sum() == 1
    assert (classes == 2).sum() == 26
    assert distance[2, 2, 2] == 1
    assert distance[1, 1, 1] == 0.5


def test_real_objects_come_back_from_their_targets(data: Path) -> None:
    labels = read_labels(data / "nuclei" / "labels" / "fluo_large.png")
    classes, distance = instance_targets(labels)
    scores = score_instances(decode_instances((classes > 0).astype(np.float32), distance), labels)
    assert scores.f1_50 >= 0.98
    assert scores.f1_90 >= 0.95


def test_diameter_of_a_disk_and_a_ball() -> None:
    grid = np.indices((41, 41, 41)) - 20
    ball = ((grid**2).sum(0) <= 15**2).astype(np.int32)
    assert object_diameters(ball)[0] == pytest.approx(30, rel=0.02)
    assert object_diameters(ball[20])[0] == pytest.approx(30, rel=0.02)
