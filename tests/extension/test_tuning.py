"""Correct, fine-tune, keep, undo: with a real scene, the Segment Editor's logic and a real worker."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from test_controller import Front, add_roi
from test_mrml import add_volume
from XLSTMUNetLib.corrections import (
    accept_region,
    accepted,
    clear_accepted,
    keep_prediction,
    predicted_by,
    prediction,
    shown_regions,
    with_region,
)
from XLSTMUNetLib.curve import has_curve, show_curve
from XLSTMUNetLib.segmenting import Request
from XLSTMUNetLib.segments import new_segmentation, read_labels, unknown_segments, write_labels
from XLSTMUNetLib.state import Phase

from xlstm_unet.errors import ImageError


@pytest.fixture
def front(scene, shared_client, wait_for):
    front = Front(shared_client, wait_for)
    front.controller.tuning.forget("untrained")
    front.wait()
    return front


class Editor:
    """The Segment Editor's own logic, with its undo."""

    def __init__(self, wired, segmentation, volume):
        self.logic = slicer.vtkSlicerSegmentEditorLogic()
        self.logic.SetMRMLScene(wired.scene)
        self.logic.SetMRMLApplicationLogic(wired.application)
        self.history = slicer.vtkSegmentationHistory()
        self.logic.SetSegmentationHistory(self.history)
        self.node = wired.scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        self.logic.SetSegmentEditorNode(self.node)
        self.logic.SetSegmentationNode(segmentation)
        self.logic.SetSourceVolumeNode(volume)
        self.segmentation, self.volume = segmentation, volume

    def paint(self, segment_id, part, erase=False):
        """Paint or erase as an effect does, overwriting other segments."""
        from vtk.util.numpy_support import vtk_to_numpy

        self.node.SetSelectedSegmentID(segment_id)
        self.logic.UpdateReferenceGeometryImage()
        self.logic.UpdateSelectedSegmentLabelmap()
        self.logic.ResetModifierLabelmapToDefault()
        modifier = self.logic.GetModifierLabelmap()
        array = vtk_to_numpy(modifier.GetPointData().GetScalars()).reshape(modifier.GetDimensions()[::-1])
        array[:] = 0
        array[part] = 1
        modifier.Modified()
        self.logic.SaveStateForUndo()
        mode = self.logic.ModificationModeRemove if erase else self.logic.ModificationModeAdd
        self.logic.ModifySegmentByLabelmap(self.segmentation, segment_id, modifier, mode, False, False)


def result_of(front, volume):
    """Return a result as if the model had found two blocks."""
    labels = np.zeros(volume.GetImageData().GetDimensions()[::-1], np.int32)
    labels[8:16, 10:22, 8:18] = 1
    labels[18:26, 24:36, 10:22] = 2
    segmentation = new_segmentation(volume, "MRI - untrained")
    write_labels(segmentation, volume, labels, front.model().labels, "untrained")
    keep_prediction(segmentation, volume, labels, "untrained")
    return segmentation, labels


def save(front, segmentation, volume):
    front.controller.tuning.save(segmentation, volume)
    front.wait()
    return front.state.counts


def test_what_was_painted_and_erased_is_what_is_counted(wired, front, mri):
    segmentation, labels = result_of(front, mri)
    assert save(front, segmentation, mri) == {}
    editor = Editor(wired, segmentation, mri)
    editor.paint("XLSTMUNet_Anterior_part", np.s_[8:10, 10:22, 8:18], erase=True)
    editor.paint("XLSTMUNet_Posterior_part", np.s_[26:28, 24:30, 10:14])
    changed = read_labels(segmentation, mri, front.model().labels, labels)
    assert int((changed != labels).sum()) == 2 * 12 * 10 + 2 * 6 * 4
    counts = save(front, segmentation, mri)
    assert counts["corrected_voxels"] >= 2 * 12 * 10 + 2 * 6 * 4
    assert not front.told


def test_undoing_a_result_is_no_correction(wired, front, mri):
    segmentation, labels = result_of(front, mri)
    editor = Editor(wired, segmentation, mri)
    done = []
    request = Request(
        mri, front.model(), segmentation, before_writing=lambda _: editor.logic.SaveStateForUndo()
    )
    front.controller.segment(request, done.append)
    front.wait()
    second = read_labels(segmentation, mri, front.model().labels)
    assert not np.array_equal(second, labels)
    editor.logic.Undo()
    assert np.array_equal(read_labels(segmentation, mri, front.model().labels), labels)
    assert save(front, segmentation, mri) == {}
    assert np.array_equal(prediction(segmentation, mri), labels)
    editor.logic.Redo()
    assert save(front, segmentation, mri) == {}
    assert np.array_equal(prediction(segmentation, mri), second)


def test_an_accepted_region_counts_and_can_be_taken_back(scene, front, mri):
    segmentation, _ = result_of(front, mri)
    roi = add_roi(scene, mri, (13, 16, 12), (11, 13, 9))
    region = accept_region(segmentation, mri, roi)
    assert accepted(segmentation, mri)[region].all()
    assert accepted(segmentation, mri).sum() == np.prod([part.stop - part.start for part in region])
    counts = save(front, segmentation, mri)
    assert counts["accepted_voxels"] > 0
    clear_accepted(segmentation)
    assert accepted(segmentation, mri) is None
    assert save(front, segmentation, mri) == {}


def test_segmenting_an_image_anew_leaves_its_stored_corrections(wired, front, mri):
    segmentation, _ = result_of(front, mri)
    Editor(wired, segmentation, mri).paint("XLSTMUNet_Posterior_part", np.s_[26:28, 24:30, 10:14])
    save(front, segmentation, mri)
    other, _ = result_of(front, mri)
    assert save(front, other, mri) == {}
    client = front.controller.backend.client
    stored = client.request("list_corrections", {"model": "untrained"}).result(60).values["corrections"]
    assert len(stored) == 1


def test_accepting_needs_a_result_and_a_region(scene, mri):
    segmentation = new_segmentation(mri, "mine")
    with pytest.raises(ImageError, match="No region"):
        accept_region(segmentation, mri, None)
    with pytest.raises(ImageError, match="does not come from a model"):
        accept_region(segmentation, mri, add_roi(scene, mri, (5, 5, 5), (4, 4, 4)))


def test_corrections_survive_the_next_segmentation(wired, front, mri):
    segmentation, _ = result_of(front, mri)
    editor = Editor(wired, segmentation, mri)
    painted = np.s_[27:30, 38:42, 24:28]
    editor.paint("XLSTMUNet_Posterior_part", painted)
    erased = np.s_[8:10, 10:22, 8:18]
    editor.paint("XLSTMUNet_Anterior_part", erased, erase=True)
    front.segment(mri, segmentation=segmentation)
    assert not front.told
    found = read_labels(segmentation, mri, front.model().labels)
    assert (found[painted] == 2).all()
    assert not (found[erased] == 1).any()
    assert accepted(segmentation, mri)[painted].all()
    assert save(front, segmentation, mri)["accepted_voxels"] > 0


def test_from_corrections_to_a_kept_version_and_back(scene, wired, front, mri):
    segmentation, _ = result_of(front, mri)
    editor = Editor(wired, segmentation, mri)
    editor.paint("XLSTMUNet_Posterior_part", np.s_[26:30, 24:36, 10:22])
    editor.paint("XLSTMUNet_Anterior_part", np.s_[8:11, 10:22, 8:18], erase=True)
    front.controller.tuning.tune(segmentation, mri, "cpu", steps=4)
    assert front.state.phase is Phase.TUNING
    front.wait(lambda: front.state.phase is Phase.READY)
    assert not front.told
    tuning = front.state.tuning
    assert len(tuning.losses) >= 3
    assert tuning.version["pending"]
    assert tuning.version["steps"] == 4
    chart = show_curve(scene, tuning)
    assert has_curve(scene)
    assert chart.GetNumberOfPlotSeriesNodes() == 3

    shown = front.segment(mri, run_as=tuning.version["folder"])
    assert shown.GetName() == "MRI - untrained (preview)"
    assert predicted_by(shown) == ""
    assert predicted_by(segmentation) == "untrained"

    kept = []
    front.controller.tuning.keep(tuning.version["version"], force=True, done=kept.append)
    front.wait()
    assert front.state.tuning is None
    assert front.model(kept[0]).origin == "own"
    versions = next(entry for entry in front.state.versions if entry["name"] == kept[0])["versions"]
    assert [version["number"] for version in versions if version["current"]] == [1]
    front.controller.tuning.undo(kept[0])
    front.wait()
    entry = next(entry for entry in front.state.versions if entry["name"] == kept[0])
    assert entry["current"] == 0
    front.controller.tuning.use(kept[0], 1)
    front.wait()
    assert next(e for e in front.state.versions if e["name"] == kept[0])["current"] == 1
    assert not front.told


def test_stop_keeps_the_best_and_discard_drops_it(wired, front, mri):
    segmentation, _ = result_of(front, mri)
    Editor(wired, segmentation, mri).paint("XLSTMUNet_Posterior_part", np.s_[26:30, 24:36, 10:22])
    front.controller.tuning.tune(segmentation, mri, "cpu", steps=100_000)
    front.wait(lambda: front.state.tuning is not None and len(front.state.tuning.losses) > 2)
    front.controller.tuning.stop()
    front.wait(lambda: front.state.phase is Phase.READY)
    assert front.state.tuning.version["steps"] < 100_000
    front.controller.tuning.discard(front.state.tuning.version["version"])
    front.wait()
    assert front.state.tuning is None
    assert "still there" in front.state.status


def test_cancel_drops_what_was_learned(wired, front, mri):
    segmentation, _ = result_of(front, mri)
    Editor(wired, segmentation, mri).paint("XLSTMUNet_Posterior_part", np.s_[26:30, 24:36, 10:22])
    front.controller.tuning.tune(segmentation, mri, "cpu", steps=100_000)
    front.wait(lambda: front.state.tuning is not None and len(front.state.tuning.losses) > 0)
    front.controller.cancel()
    front.wait(lambda: front.state.phase is Phase.READY)
    assert front.state.tuning is None
    assert not front.told
    assert front.state.status == "Cancelled."


def test_fine_tuning_without_corrections_is_told(front, mri):
    with pytest.raises(ImageError, match="no result to correct"):
        front.controller.tuning.tune(None, mri, "cpu", steps=4)
    segmentation, _ = result_of(front, mri)
    front.controller.tuning.tune(segmentation, mri, "cpu", steps=4)
    front.wait()
    assert front.state.phase is Phase.READY
    assert front.told


def test_a_saved_scene_can_be_corrected_further(wired, scene, front, mri, tmp_path):
    segmentation, labels = result_of(front, mri)
    roi = add_roi(scene, mri, (13, 16, 12), (11, 13, 9))
    accept_region(segmentation, mri, roi)
    Editor(wired, segmentation, mri).paint("XLSTMUNet_Posterior_part", np.s_[26:28, 24:30, 10:14])
    file = tmp_path / "Szene ü.mrb"
    assert scene.WriteToMRB(str(file))
    scene.Clear(0)
    assert scene.ReadFromMRB(str(file))
    back = slicer.util.getNode("MRI - untrained")
    volume = slicer.util.getNode("MRI")
    assert predicted_by(back) == "untrained"
    assert np.array_equal(prediction(back, volume), labels)
    assert accepted(back, volume).any()
    counts = save(front, back, volume)
    assert counts["corrected_voxels"] >= 2 * 6 * 4


def test_a_segment_that_the_model_does_not_know_makes_a_new_model(wired, front, mri):
    segmentation, _ = result_of(front, mri)
    own = segmentation.GetSegmentation()
    own.AddEmptySegment("Segment_1", "Zyste ü", [1.0, 0.0, 0.0])
    own.GetSegment("XLSTMUNet_Anterior_part").SetName("Kopf")
    Editor(wired, segmentation, mri).paint("Segment_1", np.s_[2:7, 3:9, 4:10])
    assert save(front, segmentation, mri) == {}
    assert front.state.unknown == ("Zyste ü",)
    assert unknown_segments(segmentation, front.model().labels) == ["Segment_1"]
    made = []
    front.controller.tuning.new_model(segmentation, made.append)
    front.wait()
    assert not front.told
    model = front.model(made[0])
    assert [label.name for label in model.labels] == ["Anterior part", "Posterior part", "Zyste ü"]
    assert model.labels[2].color == (255, 0, 0)
    assert predicted_by(segmentation) == made[0]
    assert front.state.unknown == ()
    assert save(front, segmentation, mri)["corrected_voxels"] >= 5 * 6 * 6
    front.controller.tuning.tune(segmentation, mri, "cpu", steps=2)
    front.wait(lambda: front.state.phase is Phase.READY)
    assert not front.told
    assert front.state.tuning.version["steps"] == 2
    with pytest.raises(ImageError, match="knows every segment"):
        front.controller.tuning.new_model(segmentation)


def test_a_prediction_of_another_image_is_refused(scene, front, mri):
    segmentation, _ = result_of(front, mri)
    other = add_volume(np.zeros((7, 8, 9), np.int16), name="other")
    with pytest.raises(ImageError, match="was made from an image"):
        prediction(segmentation, other)


def test_regions_that_touch_replace_each_other(scene, mri, front):
    one, two, three = np.s_[0:5, 0:5, 0:5], np.s_[4:9, 0:5, 0:5], np.s_[10:12, 0:5, 0:5]
    segmentation, labels = result_of(front, mri)
    keep_prediction(segmentation, mri, labels, "untrained", regions=[one])
    regions = with_region(with_region(shown_regions(segmentation), three), two)
    assert regions == [three, two]
