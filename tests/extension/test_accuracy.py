"""The embedded MRI model on a real MRI, against manual labels, however the volume is stored."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from test_controller import Front, add_roi
from test_mrml import add_volume, linear_transform, oblique
from XLSTMUNetLib.corrections import shown_regions
from XLSTMUNetLib.mrml import ijk_to_ras
from XLSTMUNetLib.segmenting import RegionNeededError, Request
from XLSTMUNetLib.segments import read_labels

MODEL = "hippocampus-mri"


class MRIFront(Front):
    """A front whose model is the embedded one."""

    def model(self, name=MODEL):
        return self.state.model(name)


@pytest.fixture
def front(scene, shared_client, wait_for):
    return MRIFront(shared_client, wait_for)


def dice(found, truth, value) -> float:
    return 2 * ((found == value) & (truth == value)).sum() / ((found == value).sum() + (truth == value).sum())


def test_the_sample_kind_of_mri_is_segmented_well(front, mri, truth):
    segmentation = front.segment(mri)
    assert not front.told
    found = read_labels(segmentation, mri, front.model().labels)
    assert dice(found, truth, 1) > 0.78
    assert dice(found, truth, 2) > 0.75
    names = [label.name for label in front.model().labels]
    assert len(names) == 2
    for label in front.model().labels:
        assert "Hippocamp" in label.terminology


@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_the_way_a_volume_is_stored_does_not_matter(front, mri, truth, axes):
    """The same head with voxels stored from the other end of an axis gets the same labels in space."""
    array = np.flip(np.array(slicer.util.arrayFromVolume(mri)), axes)
    matrix = ijk_to_ras(mri)
    for axis in axes:
        column = 2 - axis
        matrix[:3, 3] += matrix[:3, column] * (array.shape[axis] - 1)
        matrix[:3, column] *= -1
    volume = add_volume(np.ascontiguousarray(array), matrix, "gespiegelt")
    found = read_labels(front.segment(volume), volume, front.model().labels)
    straight = read_labels(front.segment(mri), mri, front.model().labels)
    assert np.array_equal(np.flip(found, axes), straight)


def test_oblique_and_moved_volumes_keep_their_segments_in_place(scene, front, mri, truth):
    matrix = oblique((1.0, 1.0, 1.0), flip=False)
    matrix[:3, 1] *= -1  # to the head's own directions again, but for the rotations
    volume = add_volume(np.array(slicer.util.arrayFromVolume(mri)), matrix, "schräg")
    volume.SetAndObserveTransformNodeID(linear_transform(scene).GetID())
    segmentation = front.segment(volume)
    assert not front.told
    found = read_labels(segmentation, volume, front.model().labels)
    assert dice(found > 0, truth > 0, True) > 0.8
    center = [0.0] * 3
    segmentation.GetSegmentCenterRAS(front.model().labels[0].segment_id, center)
    k, j, i = np.argwhere(truth == 1).mean(axis=0)
    local = (matrix @ [i, j, k, 1.0])[:3]
    moved = volume.GetParentTransformNode().GetTransformToParent().TransformPoint(local)
    assert np.linalg.norm(np.array(center) - moved) < 5.0


def test_a_region_in_a_larger_image(scene, front, mri, truth):
    """A whole image is refused without a region; with one, the labels are those of the crop."""
    crop = np.array(slicer.util.arrayFromVolume(mri))
    head = np.pad(crop, 30, mode="reflect")
    matrix = ijk_to_ras(mri)
    matrix[:3, 3] -= matrix[:3, :3] @ [30, 30, 30]
    volume = add_volume(head, matrix, "Kopf")
    with pytest.raises(RegionNeededError):
        front.controller.segment(Request(volume, front.model()))
    shape = np.array(crop.shape[::-1])
    roi = add_roi(scene, volume, 30 + (shape - 1) / 2, shape)
    segmentation = front.segment(volume, roi=roi)
    assert not front.told
    inside = np.s_[30 : 30 + crop.shape[0], 30 : 30 + crop.shape[1], 30 : 30 + crop.shape[2]]
    assert shown_regions(segmentation) == [inside]
    found = read_labels(segmentation, volume, front.model().labels)
    assert np.array_equal(found[inside], read_labels(front.segment(mri), mri, front.model().labels))
    assert not found[:30].any()


def test_results_are_read_back_from_both_kinds_of_file(wired, scene, front, mri, tmp_path):
    segmentation = front.segment(mri)
    expected = read_labels(segmentation, mri, front.model().labels)
    file = tmp_path / "Ergebnis ü.seg.nrrd"
    segmentation.AddDefaultStorageNode()
    segmentation.GetStorageNode().SetFileName(str(file))
    assert segmentation.GetStorageNode().WriteData(segmentation)
    back = wired.segmentations.LoadSegmentationFromFile(str(file), True, "back")
    assert np.array_equal(read_labels(back, mri, front.model().labels), expected)
    scene.RemoveNode(back)
    bundle = tmp_path / "Ergebnis ü.mrb"
    assert scene.WriteToMRB(str(bundle))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(bundle))
    volume = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
    again = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    assert np.array_equal(read_labels(again, volume, front.model().labels), expected)
