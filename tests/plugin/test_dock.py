"""The dock in a real viewer window: opened from the menu, pressed, cancelled, killed and closed midway."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.state import Finish, Phase
from xlstm_unet.measure import score_instances

if TYPE_CHECKING:
    import napari
    from conftest import SharedClient, Window
    from pytestqt.qtbot import QtBot


def test_from_the_menu_to_labels_and_sliders(window: Window) -> None:
    viewer, dock = window.viewer, window.dock
    window.entry(viewer.window.file_menu, "Fluorescent nuclei, small and bright").trigger()
    assert viewer.layers[0].name == "fluorescence_dense"
    assert dock.segment.reading.text() == "256 × 256 pixels"
    assert dock.segment.button.text() == "Segment"
    window.press()
    assert dock.segment.button.text() == "Cancel"
    window.until(lambda: window.controller.job.phase is Phase.READY)
    [labels] = window.results()
    assert labels.name == "fluorescence_dense - plane"
    assert dock.segment.status.text().startswith(f"{len(np.unique(labels.data)) - 1} objects in")
    assert dock.adjust.isVisible()
    before = (labels.data > 0).sum()
    dock.adjust.threshold.setValue(0.7)
    window.until(lambda: not window.controller.adjust.state.pending)
    assert (labels.data > 0).sum() < before
    dock.adjust.reset.click()
    window.until(lambda: not window.controller.adjust.state.pending)
    assert (labels.data > 0).sum() == before
    assert dock.adjust.threshold.value() == pytest.approx(0.5)
    assert not notification_manager.records


def test_nuclei_of_a_sample_are_found(window: Window, truth: np.ndarray) -> None:
    if window.dock.model.models.findData("nuclei") < 0:
        pytest.skip("needs the embedded model 'nuclei'")
    window.use("nuclei")
    window.dock.segment.auto_diameter.setChecked(True)
    window.entry(window.viewer.window.file_menu, "Fluorescent nuclei, small and bright").trigger()
    window.press()
    window.until(lambda: window.controller.job.finish is Finish.DONE)
    [labels] = window.results()
    assert labels.name == "fluorescence_dense - nuclei"
    assert score_instances(labels.data, truth).f1_50 > 0.8


def test_measurements_lead_to_their_objects(window: Window, cells: np.ndarray) -> None:
    window.viewer.add_image(cells[:96, :96], name="cells")
    window.press()
    window.until(lambda: window.controller.job.finish is Finish.DONE)
    window.dock.measure.click()
    window.until(lambda: not window.controller.measure.state.pending)
    view = window.dock._measurements
    assert view is not None
    model = view.table.model()
    [labels] = window.results()
    assert model.rowCount() == len(np.unique(labels.data)) - 1
    view.table.sortByColumn(1, view.table.horizontalHeader().sortIndicatorOrder().DescendingOrder)
    areas = [float(model.index(row, 1).data()) for row in range(model.rowCount())]
    assert areas == sorted(areas, reverse=True)
    view.table.clicked.emit(model.index(0, 0))
    assert labels.selected_label == int(model.index(0, 0).data())
    y, x = _camera(window.viewer).center[-2:]
    assert labels.data[round(y), round(x)] == labels.selected_label


def test_visible_area(window: Window, cells: np.ndarray) -> None:
    window.viewer.add_image(np.tile(cells, (4, 4)), name="cells")
    _camera(window.viewer).center = (0, 300, 200)
    _camera(window.viewer).zoom = 8
    regions = window.dock.segment.regions
    regions.setCurrentIndex(regions.findData(Region.VISIBLE))
    regions.activated.emit(regions.currentIndex())
    window.until(lambda: window.viewer.layers[0].corner_pixels[1, 0] < 600)
    window.press()
    window.until(lambda: window.controller.job.finish is Finish.DONE)
    [labels] = window.results()
    assert labels.data.size < 300 * 300
    middle = np.array(labels.data_to_world(np.array(labels.data.shape) / 2))
    np.testing.assert_allclose(middle, (300, 200), atol=3)


def test_cancel_midway(window: Window, cells: np.ndarray) -> None:
    window.viewer.add_image(np.tile(cells, (6, 6)))
    window.press()
    window.until(lambda: window.controller.job.progress > 0)
    started = time.monotonic()
    window.press()
    assert window.dock.segment.button.text() == "Cancelling…"
    window.until(lambda: window.controller.job.phase is Phase.READY)
    assert time.monotonic() - started < 3
    assert window.dock.segment.status.text() == "Cancelled."
    assert not window.results()
    assert not notification_manager.records


def test_worker_killed_midway(window: Window, cells: np.ndarray, client: SharedClient) -> None:
    window.viewer.add_image(np.tile(cells, (6, 6)), name="large")
    window.press()
    window.until(lambda: window.controller.job.progress > 0)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    window.until(lambda: window.controller.job.phase is Phase.READY)
    assert [record for record in notification_manager.records if "worker" in record.message]
    assert not window.results()
    window.viewer.layers["large"].data = cells[:64, :64]
    window.press()
    window.until(lambda: window.controller.job.finish is Finish.DONE)
    assert len(window.results()) == 1


def test_wrong_input_is_a_notification(window: Window) -> None:
    window.press()
    [record] = notification_manager.records
    assert "Open Sample" in record.message
    assert window.dock.segment.button.text() == "Segment"


def test_closing_midway_leaves_nothing_behind(
    viewer: napari.Viewer, qtbot: QtBot, make_window: Callable[..., Window], cells: np.ndarray
) -> None:
    window = make_window()
    window.use("plane")
    viewer.add_image(np.tile(cells, (6, 6)))
    window.press()
    window.until(lambda: window.controller.job.progress > 0)
    pid = window.controller.client.pid
    assert pid is not None
    started = time.monotonic()
    viewer.close()
    assert time.monotonic() - started < 4
    qtbot.waitUntil(lambda: not _alive(pid), timeout=5000)
    assert not notification_manager.records


def test_closing_the_dock_ends_the_worker(
    viewer: napari.Viewer, qtbot: QtBot, make_window: Callable[..., Window]
) -> None:
    window = make_window()
    window.until(lambda: window.controller.job.phase is Phase.READY)
    pid = window.controller.client.pid
    assert pid is not None
    viewer.window.remove_dock_widget(window.dock)
    window.dock.deleteLater()
    qtbot.waitUntil(lambda: not _alive(pid), timeout=5000)


def test_a_command_that_does_not_exist_can_be_tried_again(
    make_window: Callable[..., Window], monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_xlstm_unet.settings import Settings

    monkeypatch.setattr(
        "napari_xlstm_unet.controller.read_settings", lambda: Settings("/no/such/python -m x")
    )
    window = make_window()
    window.until(lambda: window.controller.job.phase is Phase.BROKEN)
    assert "/no/such/python" in notification_manager.records[0].message
    assert window.dock.segment.button.text() == "Start the worker"
    window.press()
    assert window.controller.job.phase is Phase.STARTING
    window.until(lambda: window.controller.job.phase is Phase.BROKEN)
    window.controller.close()


def _camera(viewer: napari.Viewer) -> Any:
    return getattr(viewer, "scene", viewer).camera


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
