"""Brings the widgets of the panel in line with the state; behaviour is the controller's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import slicer
from slicer.i18n import tr as _

from xlstm_unet.errors import XLSTMUNetError
from XLSTMUNetLib.curve import has_curve, show_curve
from XLSTMUNetLib.segmenting import RegionNeededError
from XLSTMUNetLib.sequences import browser_of
from XLSTMUNetLib.state import Phase, State
from XLSTMUNetLib.words import comparison, counts_text, model_text, unknown_text, version_text


def show(ui: Any, state: State, parameters: Any) -> None:
    """Show a state.

    Parameters
    ----------
    ui
        The widgets, by name.
    state
        The controller's.
    parameters
        The parameter node's wrapper, or None between two scenes.
    """
    _show_models(ui, state, parameters)
    model = state.model(parameters.model) if parameters is not None else None
    ready = model is not None and state.phase is Phase.READY
    segmenting = state.phase is Phase.SEGMENTING
    ui.modelInfoLabel.text = model_text(model)
    ui.segmentButton.text = _("Cancel") if segmenting or state.phase is Phase.CANCELLING else _("Segment")
    ui.segmentButton.enabled = ready or segmenting
    ui.allFramesCheckBox.visible = parameters is not None and browser_of(parameters.inputVolume) is not None
    ui.progressBar.value = int(1000 * state.progress)
    ui.statusLabel.text = state.status
    _show_corrections(ui, state, parameters, ready)
    _show_tuning(ui, state, ready)
    _show_versions(ui, state)


def fill(box: Any, items: Sequence[tuple[str, str]], current: str) -> None:
    """Make a list show ``(data, text)`` items, and choose one; nothing happens where it does already."""
    shown = [(box.itemData(index), box.itemText(index)) for index in range(box.count)]
    if shown != list(items):
        box.clear()
        for data, text in items:
            box.addItem(text, data)
    place = next((index for index, (data, _text) in enumerate(items) if data == current), 0 if items else -1)
    if box.currentIndex != place:
        box.currentIndex = place


def _show_models(ui: Any, state: State, parameters: Any) -> None:
    usable = [model.name for model in state.models if not model.problem]
    if parameters is not None and usable and parameters.model not in usable:
        parameters.model = usable[0]
    chosen = parameters.model if parameters is not None else ""
    fill(ui.modelComboBox, [(name, name) for name in usable], chosen)
    fill(ui.deviceComboBox, list(state.devices), parameters.device if parameters is not None else "auto")


def _show_corrections(ui: Any, state: State, parameters: Any, ready: bool) -> None:
    ui.countsLabel.text = counts_text(state.counts)
    ui.unknownLabel.text = unknown_text(state.unknown)
    ui.unknownLabel.visible = ui.newModelButton.visible = bool(state.unknown)
    has_nodes = (
        parameters is not None and parameters.region is not None and parameters.segmentation is not None
    )
    ui.acceptButton.enabled = ready and has_nodes
    ui.clearAcceptedButton.enabled = ready and bool(state.counts.get("accepted_voxels"))


def _show_tuning(ui: Any, state: State, ready: bool) -> None:
    running = state.phase is Phase.TUNING
    ui.fineTuneButton.text = _("Cancel") if running else _("Fine-tune")
    ui.fineTuneButton.enabled = running or (ready and bool(state.counts))
    ui.stopButton.enabled = running
    ui.curveButton.enabled = state.tuning is not None
    version = state.tuning.version if state.tuning is not None else None
    ui.comparisonLabel.text = comparison(version)
    for button in (ui.previewButton, ui.keepButton, ui.discardButton):
        button.enabled = version is not None and state.phase is Phase.READY
    if state.tuning is not None and has_curve(slicer.mrmlScene):
        show_curve(slicer.mrmlScene, state.tuning)


def _show_versions(ui: Any, state: State) -> None:
    items = [
        (f"{version['number']} {model['name']}", version_text(model, version))
        for model in state.versions
        for version in model["versions"]
        if not version["pending"]
    ]
    box = ui.versionComboBox
    fill(box, items, box.itemData(box.currentIndex) or "")
    for button in (ui.useVersionButton, ui.undoVersionButton):
        button.enabled = bool(items) and not state.busy
    ui.forgetButton.enabled = bool(state.models) and not state.busy


class ErrorsShown:
    """Show the core's errors to the user and go on; a model's wish for a region goes to the caller.

    Parameters
    ----------
    tell
        Shows an error.
    """

    def __init__(self, tell: Callable[[XLSTMUNetError], None]) -> None:
        self._tell = tell

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, XLSTMUNetError) and not isinstance(error, RegionNeededError):
            self._tell(error)
            return True
        return False
