"""Small models, one warm worker for all tests, a loop that stands in for the window's, and real windows."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels
from napari.utils.notifications import notification_manager
from npe2 import PluginManager
from qtpy.QtWidgets import QMenu, QWidget

from napari_xlstm_unet.controller import Controller
from napari_xlstm_unet.dock import Dock
from napari_xlstm_unet.state import Phase
from xlstm_unet.images import read_image, read_labels
from xlstm_unet.samples import SAMPLES
from xlstm_unet.spec import ModelSpec
from xlstm_unet.worker import WorkerClient

if TYPE_CHECKING:
    import napari
    from pytestqt.qtbot import QtBot

HERE = Path(__file__).parent
SECONDS = 60.0


class SharedClient(WorkerClient):
    """A worker that outlives the windows that use it."""

    def close(self) -> None:
        """Leave the worker to the next test."""

    def end(self) -> None:
        """End the worker."""
        super().close()


class Loop:
    """Runs posted calls on the test's thread, as a window's event loop would."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.post = self._calls.put

    def until(self, condition: Callable[[], object], seconds: float = SECONDS) -> None:
        """Run calls until ``condition`` holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not happen in time"
            try:
                self._calls.get(timeout=0.02)()
            except queue.Empty:
                continue


class Bench:
    """A controller in a viewer without a window."""

    def __init__(self, client: WorkerClient) -> None:
        self.loop = Loop()
        self.viewer = ViewerModel()
        self.controller = Controller(self.viewer, self.loop.post, client)
        self.loop.until(lambda: self.controller.job.phase is Phase.READY)

    def use(self, model: str, diameter: float | None = 20.0) -> None:
        """Choose a model, and with ``diameter`` the time of its estimate is saved."""
        self.controller.model.choose(model)
        self.loop.until(lambda: self.controller.model.state.spec is not None)
        self.controller.image.state.auto_diameter = diameter is None
        if diameter is not None:
            self.controller.image.state.diameter = diameter

    def segment(self) -> None:
        """Press the button and wait for the end."""
        before = len(notification_manager.records)
        self.controller.segment.press()
        self.wait()
        assert not [str(record) for record in notification_manager.records[before:]]

    def wait(self) -> None:
        """Wait for the end of running work."""
        self.loop.until(lambda: not self.controller.job.busy)

    def messages(self) -> list[str]:
        """Return and forget what the user was told."""
        told = [record.message for record in notification_manager.records]
        notification_manager.records.clear()
        return told


@pytest.fixture
def make_bench() -> Callable[[WorkerClient], Bench]:
    """Make a controller with another worker."""
    return Bench


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of small untrained models."""
    folder = tmp_path_factory.mktemp("home")
    subprocess.run([sys.executable, str(HERE / "make_models.py"), str(folder)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="session")
def spec(home: Path) -> ModelSpec:
    """Specification of the model "plane"."""
    return ModelSpec.model_validate_json((home / "models" / "plane" / "model.json").read_bytes())


@pytest.fixture(scope="session")
def client(home: Path) -> Iterator[SharedClient]:
    """One warm worker for all tests."""
    shared = SharedClient(env={**os.environ, "XLSTM_UNET_HOME": str(home), "OMP_NUM_THREADS": "1"})
    yield shared
    shared.end()


@pytest.fixture(autouse=True)
def _own_settings(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(home))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("napari_xlstm_unet.settings.settings_file", lambda: tmp_path / "settings.json")
    monkeypatch.setattr("napari_xlstm_unet.settings._napari_section", lambda: None)
    notification_manager.records.clear()


@pytest.fixture
def bench(client: SharedClient) -> Iterator[Bench]:
    """A controller in a viewer without a window, with the model "plane" chosen."""
    made = Bench(client)
    made.use("plane")
    yield made
    made.controller.close()


def _entry(menu: QMenu, words: str) -> Any:
    """Return the action of a menu, or of its submenus, whose text holds ``words``."""
    menu.aboutToShow.emit()
    for action in menu.actions():
        if words in action.text() and action.menu() is None:
            return action
        found = _entry(action.menu(), words) if action.menu() is not None else None
        if found is not None:
            return found
    return None


@pytest.fixture
def viewer(make_napari_viewer: Callable[..., napari.Viewer]) -> napari.Viewer:
    """A shown window that knows the installed plugins."""
    PluginManager.instance().discover(include_npe1=False)
    return make_napari_viewer(show=True)


class Window:
    """A viewer with the dock opened from the menu."""

    def __init__(self, viewer: napari.Viewer, qtbot: QtBot) -> None:
        self.viewer = viewer
        self._qtbot = qtbot
        _entry(viewer.window.layers_menu, "xLSTM-UNet").trigger()
        docks = [dock for dock in viewer.window._qt_window.findChildren(QWidget) if isinstance(dock, Dock)]
        [self.dock] = docks
        self.controller = self.dock.controller

    def use(self, model: str) -> None:
        """Choose a model in the list, and a diameter."""
        self.until(lambda: self.controller.job.phase is Phase.READY)
        models = self.dock.model.models
        models.setCurrentIndex(models.findData(model))
        models.activated.emit(models.currentIndex())
        self.until(lambda: self.controller.model.state.spec is not None)
        self.dock.segment.auto_diameter.setChecked(False)
        self.dock.segment.diameter.setValue(20)

    def until(self, condition: Callable[[], object]) -> None:
        """Let the window live until ``condition`` holds."""
        self._qtbot.waitUntil(lambda: bool(condition()), timeout=round(1000 * SECONDS))

    def entry(self, menu: QMenu, words: str) -> Any:
        """Return the action of a menu whose text holds ``words``."""
        return _entry(menu, words)

    def press(self) -> None:
        """Click the button."""
        self.dock.segment.button.click()

    def results(self) -> list[Labels]:
        """Return the result layers."""
        return [layer for layer in self.viewer.layers if isinstance(layer, Labels)]


@pytest.fixture
def make_window(viewer: napari.Viewer, qtbot: QtBot) -> Callable[[], Window]:
    """Open the dock, with a worker of its own."""
    return lambda: Window(viewer, qtbot)


@pytest.fixture
def window(
    make_window: Callable[[], Window], client: SharedClient, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Window]:
    """A window whose dock uses the tests' common worker."""
    monkeypatch.setattr("napari_xlstm_unet.controller.WorkerClient", lambda command: client)
    made = make_window()
    made.use("plane")
    yield made
    made.controller.close()


@pytest.fixture(scope="session")
def cells() -> np.ndarray:
    """Fluorescent nuclei, uint8 (Y, X)."""
    return np.asarray(read_image(SAMPLES[0].image).array)


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """The true labels of ``cells``."""
    return np.asarray(read_labels(SAMPLES[0].labels))
