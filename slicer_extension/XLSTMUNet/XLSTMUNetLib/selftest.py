"""What only a desktop Slicer can show: the panel itself, its editor's undo, closing the scene."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import slicer
import slicer.util

MODEL = "hippocampus-mri"
WAIT_SECONDS = 180.0


def run_all(say: Callable[[str], object]) -> None:
    """Run every test; ``say`` shows what is being done."""
    for test in (sample_is_segmented, result_is_one_undo_step, scene_is_closed_while_running):
        slicer.mrmlScene.Clear()
        say((test.__doc__ or "").splitlines()[0])
        test()
    say("All tests passed.")


def sample_is_segmented() -> None:
    """The sample is segmented from the panel, with both parts of the hippocampus."""
    widget = _panel_with_sample()
    _press_segment(widget)
    parameters = widget._parameterNode
    own = parameters.segmentation.GetSegmentation()
    assert own.GetNumberOfSegments() == 2, own.GetNumberOfSegments()
    for index in range(2):
        mask = _mask(parameters, own.GetNthSegmentID(index))
        assert mask.sum() > 300, mask.sum()


def result_is_one_undo_step() -> None:
    """Segmenting again is undone by one press of the editor's Undo."""
    widget = _panel_with_sample()
    _press_segment(widget)
    parameters = widget._parameterNode
    first = parameters.segmentation.GetSegmentation().GetNthSegmentID(0)
    before = _mask(parameters, first)
    slicer.util.arrayFromVolume(parameters.inputVolume)[:10] = 0
    slicer.util.arrayFromVolumeModified(parameters.inputVolume)
    _press_segment(widget)
    assert not np.array_equal(_mask(parameters, first), before)
    widget.editor.undo()
    assert np.array_equal(_mask(parameters, first), before)


def scene_is_closed_while_running() -> None:
    """Closing the scene while work runs ends it and leaves a usable panel."""
    widget = _panel_with_sample()
    widget.onSegment()
    slicer.mrmlScene.Clear()
    _wait(lambda: not widget.logic.controller.state.busy)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def _panel_with_sample() -> Any:
    from XLSTMUNet import loadSample

    slicer.util.selectModule("XLSTMUNet")
    widget = slicer.modules.XLSTMUNetWidget
    _wait(lambda: widget.logic.controller.state.phase == "ready")
    widget._parameterNode.inputVolume = loadSample()
    widget._parameterNode.segmentation = None
    widget._parameterNode.model = MODEL
    return widget


def _press_segment(widget: Any) -> None:
    widget.onSegment()
    _wait(lambda: not widget.logic.controller.state.busy)


def _mask(parameters: Any, segment_id: str) -> Any:
    array = slicer.util.arrayFromSegmentBinaryLabelmap(
        parameters.segmentation, segment_id, parameters.inputVolume
    )
    return np.array(array) > 0


def _wait(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < until, "waited in vain"
        slicer.app.processEvents()
        time.sleep(0.01)
