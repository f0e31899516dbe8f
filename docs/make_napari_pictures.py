"""Makes the screenshots of docs/napari.md.

xvfb-run -a -s "-screen 0 1400x900x24" python docs/make_napari_pictures.py docs/images
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import napari
from PIL import Image
from qtpy.QtWidgets import QApplication

from napari_xlstm_unet.dock import Dock
from napari_xlstm_unet.state import Phase

MODEL = "nuclei"


def until(condition: Callable[[], object], seconds: float = 300) -> None:
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


def segment(dock: Dock) -> None:
    """Press the button and wait."""
    dock.segment.button.click()
    until(lambda: dock.controller.job.phase is Phase.READY)
    rest()


def main(folder: Path) -> None:
    """Open the window, segment a sample, move a slider."""
    folder.mkdir(parents=True, exist_ok=True)
    viewer = napari.Viewer()
    viewer.window.resize(1240, 780)
    _, dock = viewer.window.add_plugin_dock_widget("xlstm-unet")
    until(lambda: dock.controller.job.phase is Phase.READY)
    dock.controller.model.choose(MODEL)
    until(lambda: dock.controller.model.state.spec is not None)

    def shoot(name: str) -> None:
        rest()
        picture = viewer.screenshot(canvas_only=False, flash=False)
        small = Image.fromarray(picture[..., :3]).quantize(255, dither=Image.Dither.NONE)
        small.save(folder / f"napari-{name}.png", optimize=True)

    viewer.open_sample("xlstm-unet", "histology_white")
    shoot("dock")
    viewer.layers.clear()
    viewer.open_sample("xlstm-unet", "fluorescence_dense")
    segment(dock)
    shoot("result")
    dock.adjust.threshold.setValue(0.8)
    dock.adjust.min_size.setValue(60)
    until(lambda: not dock.controller.adjust.state.pending)
    shoot("sliders")
    dock.adjust.reset.click()
    until(lambda: not dock.controller.adjust.state.pending)
    dock.measure.click()
    until(lambda: not dock.controller.measure.state.pending)
    shoot("table")
    viewer.close()
    rest(0.2)


main(Path(sys.argv[1]))
