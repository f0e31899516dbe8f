"""Correcting, fine-tuning and choosing models in a real window, by its buttons."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_xlstm_unet.hub_view import ModelsDialog
from napari_xlstm_unet.learn_state import Training
from napari_xlstm_unet.new_model_view import NewModelDialog
from napari_xlstm_unet.state import Finish, Phase
from napari_xlstm_unet.versions_view import CorrectionsDialog

if TYPE_CHECKING:
    from conftest import SharedClient, Window


@pytest.fixture(autouse=True)
def _clean(client: SharedClient, home: Path) -> Iterator[None]:
    """End without corrections and versions of the tests' model."""
    yield
    for name in ("corrections", "versions", "models/plane-tuned", "models/halves-more"):
        shutil.rmtree(home / name, ignore_errors=True)


def _segment(window: Window, cells: np.ndarray) -> None:
    window.viewer.add_image(cells, name="cells")
    window.press()
    window.until(lambda: window.controller.job.finish is Finish.DONE)


def test_from_the_brush_to_a_new_version(window: Window, cells: np.ndarray, truth: np.ndarray) -> None:
    dock, controller = window.dock, window.controller
    assert not dock.correct.visible_button.isEnabled()
    assert not dock.finetune.keep.isVisible()
    _segment(window, cells[:96, :96])
    [labels] = window.results()
    labels.data[:60] = np.where(truth[:60, :96] > 0, truth[:60, :96] + 1000, 0)
    labels.refresh()
    state = controller.correct.state
    window.until(lambda: state.counts.any)
    assert f"<b>{state.counts.corrected}</b> corrected" in dock.correct.counts.text()
    dock.correct.visible_button.click()
    window.until(lambda: state.counts.accepted)
    dock.correct.overlay.setChecked(True)
    assert any("corrected, accepted" in layer.name for layer in window.viewer.layers)
    dock.correct.overlay.setChecked(False)
    window.until(lambda: not state.unsaved and "saved" in dock.correct.about.text())

    dock.finetune.go.click()
    assert dock.finetune.cancel.isVisible()
    assert not dock.segment.button.isEnabled()
    window.until(dock.finetune.stop.isEnabled)
    assert dock.finetune.curve.isVisible()
    assert "s left" in dock.finetune.status.text()
    dock.finetune.stop.click()
    tuning = controller.finetune.state
    window.until(lambda: tuning.phase is Training.JUDGING and tuning.can_compare)
    assert dock.finetune.verdict.text()
    assert escape(tuning.pending.message) in dock.finetune.scores.text()
    assert dock.finetune.keep.text() in ("Keep", "Keep anyway")
    dock.finetune.shows[tuning.shown.BEFORE].click()
    assert window.viewer.layers[-1].name == "cells: before fine-tuning"
    dock.finetune.keep.click()
    window.until(lambda: dock.model.models.currentData() == "plane-tuned")
    window.until(lambda: controller.job.phase is Phase.READY)
    assert not dock.finetune.keep.isVisible()
    window.until(lambda: dock.versions.versions.currentData() == 1)
    dock.versions.undo.click()
    window.until(lambda: dock.versions.versions.currentData() == 0)
    window.until(dock.versions.corrections.isVisible)
    dialog = CorrectionsDialog(controller.versions, dock.versions)
    assert dialog.tree.topLevelItemCount() >= 1
    assert not dialog.forget.isEnabled()
    dialog.tree.topLevelItem(0).setCheckState(0, dialog.tree.topLevelItem(0).checkState(0).Checked)
    assert dialog.forget.isEnabled()
    dialog.forget.click()
    window.until(lambda: any("forgotten" in r.message for r in notification_manager.records))


def test_labels_beyond_the_models_make_a_new_one(window: Window, cells: np.ndarray) -> None:
    window.use("halves")
    _segment(window, cells[:64, :64])
    [labels] = window.results()
    assert not window.dock.correct.new_model.isVisible()
    labels.data[:20, :20] = 3
    labels.refresh()
    window.until(window.dock.correct.new_model.isVisible)
    dialog = NewModelDialog(window.controller.new_model, window.dock)
    assert dialog.labels.text() == "label 3"
    dialog.labels.setText("middle")
    dialog.make.click()
    window.until(lambda: window.dock.model.models.currentData() == "halves-more")
    spec = window.controller.model.state
    window.until(lambda: spec.spec is not None)
    assert [label.name for label in spec.spec.labels] == ["left", "right", "middle"]
    state = window.controller.correct.state
    window.until(lambda: state.counts.corrected and not state.beyond)
    assert state.model == "halves-more"
    assert not window.dock.correct.new_model.isVisible()


def test_models_on_this_computer(window: Window) -> None:
    dialog = ModelsDialog(window.controller.hub, window.dock)
    dialog.open()
    names = [dialog.here.topLevelItem(row).text(0) for row in range(dialog.here.topLevelItemCount())]
    assert {"plane", "halves", "volume"} <= set(names)
    dialog.here.setCurrentItem(dialog.here.topLevelItem(names.index("halves")))
    window.until(lambda: "MB" in dialog.facts.text())
    assert dialog.remove.isEnabled()
    dialog.use.click()
    assert window.controller.model.state.name == "halves"
    assert not dialog.isVisible()


def test_what_does_not_fit_is_said_before_segment(window: Window, cells: np.ndarray) -> None:
    window.viewer.add_image(cells[:64, :64], name="cells")
    window.until(lambda: window.controller.image.state.layer == "cells")
    assert not window.dock.segment.fit.isVisible()
    window.use("volume")
    window.until(window.dock.segment.fit.isVisible)
    assert "without Z" in window.dock.segment.fit.text()
    window.use("plane")
    window.until(lambda: not window.dock.segment.fit.isVisible())
