"""Segmenting through the controller, with a real scene and a real worker process."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
from test_mrml import add_volume, linear_transform, oblique
from XLSTMUNetLib.controller import Controller
from XLSTMUNetLib.corrections import predicted_by, prediction
from XLSTMUNetLib.mrml import place_roi
from XLSTMUNetLib.segmenting import RegionNeededError, Request
from XLSTMUNetLib.segments import read_labels, segments_of
from XLSTMUNetLib.sequences import browser_of
from XLSTMUNetLib.state import ModelInfo, Phase

from xlstm_unet.errors import ImageError
from xlstm_unet.worker.errors import WorkerStartError


class Front:
    """A controller, with what it told the user."""

    def __init__(self, client, wait_for):
        self.told = []
        self.controller = Controller(client, self.told.append)
        self.state = self.controller.state
        self._wait_for = wait_for
        self.controller.start()
        self.wait(lambda: self.state.phase is not Phase.STARTING)

    def wait(self, condition=None, timeout=400.0):
        condition = condition or (lambda: not self.controller.background.expecting)
        self._wait_for(self.controller.background, condition, timeout)

    def model(self, name="untrained") -> ModelInfo:
        return self.state.model(name)

    def segment(self, volume, **options):
        results = []
        self.controller.segment(Request(volume, self.model(), **options), results.append)
        self.wait()
        return results[0] if results else None


@pytest.fixture
def front(scene, shared_client, wait_for):
    return Front(shared_client, wait_for)


def add_roi(scene, volume, center, size):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "region")
    place_roi(roi, volume, center, size)
    return roi


def test_the_worker_tells_its_models_and_devices(front):
    model = front.model()
    assert (model.dimension, model.task) == (3, "classes")
    assert [label.segment_id for label in model.labels] == [
        "XLSTMUNet_Anterior_part",
        "XLSTMUNet_Posterior_part",
    ]
    assert front.state.devices[0] == ("auto", "Automatic")
    assert any(name == "cpu" for name, _ in front.state.devices)


def test_a_real_mri_is_segmented_as_the_worker_says(front, mri):
    segmentation = front.segment(mri)
    assert not front.told
    assert segmentation.GetName() == "MRI - untrained"
    image = slicer.util.arrayFromVolume(mri)
    matrix = np.eye(4)
    reply = front.controller.backend.client.request(
        "segment",
        {"model": "untrained", "axes": "ZYX", "spacing": (1, 1, 1), "unit": "mm", "affine": matrix.tolist()},
        {"image": np.array(image)},
    ).result(400)
    found = read_labels(segmentation, mri, front.model().labels)
    assert found.any()
    assert np.array_equal(found, reply.arrays["labels"])
    assert np.array_equal(prediction(segmentation, mri), found)
    assert predicted_by(segmentation) == "untrained"
    assert front.state.phase is Phase.READY
    assert "Done in" in front.state.status


@pytest.mark.parametrize("flip", [False, True])
def test_the_segments_lie_where_the_anatomy_lies(scene, front, mri, flip):
    """The same voxels under an oblique matrix and a moving transform get the same labels, in their place."""
    straight = front.segment(mri)
    expected = read_labels(straight, mri, front.model().labels)
    volume = add_volume(np.array(slicer.util.arrayFromVolume(mri)), oblique((1, 1, 1), flip=flip), "schräg")
    volume.SetAndObserveTransformNodeID(linear_transform(scene).GetID())
    segmentation = front.segment(volume)
    assert not front.told
    assert segmentation.GetTransformNodeID() == volume.GetTransformNodeID()
    assert (read_labels(segmentation, volume, front.model().labels) > 0).mean() == pytest.approx(
        (expected > 0).mean(), abs=0.02
    )


def test_a_region_changes_nothing_outside(scene, front, mri):
    first = front.segment(mri)
    labels = front.model().labels
    everywhere = read_labels(first, mri, labels)
    roi = add_roi(scene, mri, (15, 20, 15), (11, 11, 11))
    inside = np.zeros(everywhere.shape, bool)
    inside[10:21, 15:26, 10:21] = True
    second = front.segment(mri, roi=roi)
    found = read_labels(second, mri, labels)
    assert found[inside].any()
    assert not found[~inside].any()
    slicer.util.arrayFromVolume(mri)[:] += 0
    third = front.segment(mri, segmentation=first, roi=roi)
    assert third is first
    assert np.array_equal(read_labels(first, mri, labels)[~inside], everywhere[~inside])


def test_a_field_of_view_is_asked_for(scene, front):
    view = {
        "description": "a crop around one hippocampus",
        "extent_mm": (35, 50, 35),
        "max_extent_mm": (64, 80, 64),
    }
    model = ModelInfo("hippo", labels=front.model().labels, field_of_view=view)
    head = add_volume(np.zeros((150, 200, 180), np.int16), name="Kopf")
    with pytest.raises(RegionNeededError, match="crop around one hippocampus") as caught:
        front.controller.segment(Request(head, model))
    assert "Draw a region" in caught.value.hint
    assert not front.state.busy


def test_before_writing_is_called_once_for_a_segmentation_that_is_there(front, mri):
    saved = []
    segmentation = front.segment(mri, before_writing=saved.append)
    assert saved == []
    front.segment(mri, segmentation=segmentation, before_writing=saved.append)
    assert saved == [segmentation]


@pytest.mark.parametrize("what", ["none", "label map", "one slice", "empty roi", "roi outside"])
def test_bad_input_is_refused_before_anything_begins(scene, front, what):
    volume = add_volume(np.zeros((20, 30, 40), np.int16))
    options = {}
    if what == "none":
        volume = None
    elif what == "label map":
        volume = add_volume(np.zeros((20, 30, 40), np.int16), kind="vtkMRMLLabelMapVolumeNode")
    elif what == "one slice":
        volume = add_volume(np.zeros((1, 30, 40), np.int16))
    else:
        size = (0, 0, 0) if what == "empty roi" else (5, 5, 5)
        options["roi"] = add_roi(scene, volume, (500, 500, 500), size)
    before = scene.GetNumberOfNodes()
    with pytest.raises(ImageError) as caught:
        front.controller.segment(Request(volume, front.model(), **options))
    assert caught.value.hint
    assert scene.GetNumberOfNodes() == before
    assert front.state.phase is Phase.READY


def test_values_that_are_no_numbers_are_told(front):
    array = np.zeros((20, 30, 40), np.float32)
    array[3, 4, 5] = np.nan
    assert front.segment(add_volume(array, name="NaN ü")) is None
    assert "NaN ü" in str(front.told[0])
    assert front.state.phase is Phase.READY


def test_cancel_leaves_nothing(scene, front):
    volume = add_volume(np.random.default_rng(0).normal(size=(96, 160, 160)).astype(np.float32))
    before = scene.GetNumberOfNodes()
    front.controller.segment(Request(volume, front.model()), pytest.fail)
    front.wait(lambda: front.state.progress > 0)
    front.controller.cancel()
    assert front.state.phase is Phase.CANCELLING
    front.wait()
    assert (front.state.phase, front.state.status) == (Phase.READY, "Cancelled.")
    assert scene.GetNumberOfNodes() == before
    assert not front.told


@pytest.mark.parametrize("what", ["volume", "segmentation", "scene"])
def test_nodes_may_be_deleted_while_the_worker_works(scene, front, mri, what):
    segmentation = front.segment(mri)
    front.controller.segment(Request(mri, front.model(), segmentation), pytest.fail)
    if what == "scene":
        scene.Clear(0)
        front.controller.scene_closed()
    else:
        scene.RemoveNode(mri if what == "volume" else segmentation)
    front.wait()
    assert front.state.phase is Phase.READY
    if what == "scene":
        assert not front.told
    else:
        assert f"{what} was deleted" in str(front.told[0])


def test_a_volume_that_was_replaced_meanwhile_is_told(front, mri):
    segmentation = front.segment(mri)
    before = read_labels(segmentation, mri, front.model().labels)
    front.controller.segment(Request(mri, front.model(), segmentation), pytest.fail)
    slicer.util.updateVolumeFromArray(mri, np.zeros((5, 6, 7), np.float32))
    front.wait()
    assert "changed meanwhile" in str(front.told[0])
    assert before.any()


def test_every_frame_of_a_sequence_is_segmented(scene, wired, front, mri):
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "images")
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    array = np.array(slicer.util.arrayFromVolume(mri))
    for frame in range(3):
        volume = add_volume(np.roll(array, 4 * frame, axis=0), name="frame")
        sequence.SetDataNodeAtValue(volume, str(10 * frame))
        scene.RemoveNode(volume)
    browser.AddSynchronizedSequenceNode(sequence)
    wired.sequences.UpdateProxyNodesFromSequences(browser)
    shown = browser.GetProxyNode(sequence)
    assert browser_of(shown) is browser
    segmentation = front.segment(shown, all_frames=True)
    assert not front.told
    found = []
    for frame in range(3):
        browser.SetSelectedItemNumber(frame)
        wired.sequences.UpdateProxyNodesFromSequences(browser)
        found.append(read_labels(segmentation, shown, front.model().labels))
    assert found[0].any()
    assert not np.array_equal(found[0], found[1])
    single = front.segment(add_volume(np.roll(array, 8, axis=0), name="third"))
    third = slicer.util.getNode("third")
    assert np.array_equal(found[2], read_labels(single, third, front.model().labels))


def test_all_frames_of_a_single_volume_is_refused(scene, front, mri):
    with pytest.raises(ImageError, match="no frame of a sequence"):
        front.controller.segment(Request(mri, front.model(), all_frames=True))


def test_names_with_spaces_and_unicode(front, mri):
    mri.SetName('Kopf links, é 空白 "zitiert" ~^')
    segmentation = front.segment(mri)
    assert segmentation.GetName() == 'Kopf links, é 空白 "zitiert" ~^ - untrained'
    assert [name for name, _ in segments_of(segmentation)] == [
        "XLSTMUNet_Anterior_part",
        "XLSTMUNet_Posterior_part",
    ]


def test_a_worker_that_cannot_start_is_told(scene, make_client, wait_for):
    front = Front(make_client(["/nicht da/python", "-m", "xlstm_unet.worker"]), wait_for)
    assert front.state.phase is Phase.BROKEN
    assert isinstance(front.told[0], WorkerStartError)
    assert "Set-up" in front.state.status
