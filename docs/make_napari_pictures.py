"""Makes the screenshots of docs/napari.md.

xvfb-run -a -s "-screen 0 1400x1000x24" python docs/make_napari_pictures.py docs/images [PICTURE ...]

It needs no network: the Hub of one picture is the tests' own. Nothing is left in the user's folders.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import napari
import numpy as np
from PIL import Image
from qtpy.QtWidgets import QApplication, QWidget

from napari_xlstm_unet.dock import Dock
from napari_xlstm_unet.hub_state import HubPhase
from napari_xlstm_unet.hub_view import ModelsDialog
from napari_xlstm_unet.learn_state import Training
from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.state import Phase
from xlstm_unet.images import read_labels
from xlstm_unet.samples import SAMPLES

MODEL = "nuclei"
EMBEDDED = Path(__file__).parents[1] / "core" / "xlstm_unet" / "zoo" / "embedded"


def until(condition: Callable[[], object], seconds: float = 600) -> None:
    """Let the window live until ``condition`` holds."""
    end = time.monotonic() + seconds
    while not condition():
        QApplication.processEvents()
        time.sleep(0.005)
        if time.monotonic() > end:
            raise TimeoutError("it did not happen in time")


def rest(seconds: float = 1.0) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


class Studio:
    """A window, and a folder for pictures of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.viewer = napari.Viewer()
        self.viewer.window.resize(1240, 880)
        _, self.dock = self.viewer.window.add_plugin_dock_widget("xlstm-unet")
        assert isinstance(self.dock, Dock)
        self.controller = self.dock.controller
        until(lambda: self.controller.job.phase is Phase.READY)
        self.use(MODEL)

    def use(self, model: str) -> None:
        """Choose a model."""
        self.controller.model.choose(model)
        until(lambda: self.controller.model.state.spec is not None)

    def shoot(self, name: str) -> None:
        """Take the whole window."""
        rest()
        self.save(self.viewer.screenshot(canvas_only=False, flash=False), name)

    def shoot_dialog(self, dialog: QWidget, name: str) -> None:
        """Take a dialog."""
        rest()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "dialog.png"
            dialog.grab().save(str(path))
            self.save(np.asarray(Image.open(path).convert("RGB")), name)

    def save(self, picture: np.ndarray, name: str) -> None:
        """Write a small PNG."""
        image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
        image = image.quantize(255, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        image.save(self.folder / f"napari-{name}.png", optimize=True)

    def sample(self, name: str) -> None:
        """Open a sample alone."""
        self.viewer.layers.clear()
        self.viewer.open_sample("xlstm-unet", name)

    def segment(self) -> None:
        """Press the button and wait."""
        self.dock.segment.button.click()
        until(lambda: self.controller.job.phase is Phase.READY)
        rest()

    def scroll_to(self, widget: QWidget) -> None:
        """Bring a part of the dock into view."""
        self.dock.ensureWidgetVisible(widget, 0, 20)


def basics(studio: Studio) -> None:
    """The dock, a result, sliders, the table."""
    dock, viewer = studio.dock, studio.viewer
    studio.sample("histology_white")
    studio.shoot("dock")
    studio.sample("fluorescence_dense")
    studio.segment()
    studio.shoot("result")
    dock.adjust.threshold.setValue(0.8)
    dock.adjust.min_size.setValue(60)
    until(lambda: not studio.controller.adjust.state.pending)
    studio.shoot("sliders")
    dock.adjust.reset.click()
    until(lambda: not studio.controller.adjust.state.pending)
    dock.measure.click()
    until(lambda: not studio.controller.measure.state.pending)
    studio.shoot("table")
    viewer.window.remove_dock_widget(dock._measurements.parent())


def finetune(studio: Studio) -> None:
    """Correct, accept, fine-tune; before and after."""
    dock, viewer, controller = studio.dock, studio.viewer, studio.controller
    studio.sample("histology_purple")
    studio.segment()
    labels = controller.adjust.result.layer
    truth = read_labels(next(sample for sample in SAMPLES if sample.name == "histology_purple").labels)
    half = truth.shape[1] // 2
    labels.data[:, :half] = np.where(truth[:, :half] > 0, truth[:, :half] + 2000, 0)
    box = [[[10, 10], [10, half - 10], [110, half - 10], [110, 10]]]
    viewer.add_shapes(box, shape_type="rectangle", face_color="transparent", edge_color="white", name="box")
    viewer.layers.selection.active = labels
    labels.refresh()
    controller.correct.accept(Region.BOX, "box")
    dock.correct.overlay.setChecked(True)
    state, tuning = controller.correct.state, controller.finetune.state
    until(lambda: state.counts.any and not state.pending and not state.unsaved)
    dock.finetune.budget.setCurrentIndex(1)
    dock.finetune.budget.activated.emit(1)
    dock.finetune.go.click()
    until(
        lambda: len(tuning.curve.check) + len(tuning.curve.held_out) >= 4 or tuning.phase is Training.JUDGING
    )
    studio.scroll_to(dock.versions)
    studio.shoot("finetune")
    until(lambda: tuning.phase is Training.JUDGING and tuning.can_compare)
    dock.correct.overlay.setChecked(False)
    viewer.layers["box"].visible = False
    studio.scroll_to(dock.finetune.discard)
    studio.shoot("after")
    dock.finetune.discard.click()


def models(studio: Studio) -> None:
    """Search a Hub and look at a card."""
    dialog = ModelsDialog(studio.controller.hub, studio.dock)
    dialog.open()
    dialog.tabs.setCurrentIndex(1)
    dialog.query.setText("nuclei")
    dialog.search.click()
    hub = studio.controller.hub.state
    until(lambda: hub.phase is HubPhase.IDLE)
    dialog.found.setCurrentItem(dialog.found.topLevelItem(0))
    until(lambda: hub.card is not None and hub.card.text)
    studio.shoot_dialog(dialog, "models")
    dialog.reject()


def mri(studio: Studio) -> None:
    """A hippocampus, segmented, in 3D."""
    viewer = studio.viewer
    studio.sample("hippocampus_mri")
    studio.use("hippocampus-mri")
    studio.segment()
    viewer.dims.ndisplay = 3
    viewer.layers[0].rendering = "attenuated_mip"
    viewer.layers[-1].opacity = 0.9
    viewer.reset_view()
    camera = getattr(viewer, "scene", viewer).camera
    camera.angles = (-5, 35, 120)
    studio.shoot("mri")
    viewer.dims.ndisplay = 2


PICTURES = {"basics": basics, "finetune": finetune, "models": models, "mri": mri}


def main(folder: Path, names: list[str]) -> None:
    """Open the window and take the pictures."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from hub_server import HubServer

    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp())
    server = HubServer()
    server.add("example/nuclei", EMBEDDED / MODEL)
    os.environ |= {"XLSTM_UNET_HOME": str(home), "HF_ENDPOINT": server.url, "HF_HOME": str(home / "hf")}
    studio = Studio(folder)
    for name in names or PICTURES:
        PICTURES[name](studio)
    studio.viewer.close()
    rest(0.2)
    server.close()
    shutil.rmtree(home, ignore_errors=True)


main(Path(sys.argv[1]), sys.argv[2:])
