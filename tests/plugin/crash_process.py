"""Opens a window, segments, corrects, says so once it is stored, and waits to be killed."""

from __future__ import annotations

import time

import napari
import numpy as np
from qtpy.QtWidgets import QApplication

from napari_xlstm_unet.dock import Dock
from napari_xlstm_unet.state import Phase
from xlstm_unet.images import read_image
from xlstm_unet.samples import SAMPLES


def main() -> None:
    viewer = napari.Viewer()
    dock = Dock(viewer)
    viewer.window.add_dock_widget(dock)
    controller = dock.controller

    def until(condition: object) -> None:
        end = time.monotonic() + 120
        while not condition():  # type: ignore[operator]
            QApplication.processEvents()
            time.sleep(0.01)
            assert time.monotonic() < end

    until(lambda: controller.job.phase is Phase.READY)
    controller.model.choose("plane")
    until(lambda: controller.model.state.spec is not None)
    viewer.add_image(np.asarray(read_image(SAMPLES[0].image).array)[:96, :96], name="cells")
    dock.segment.button.click()
    until(lambda: controller.job.phase is Phase.READY)
    labels = viewer.layers[-1]
    new = int(labels.data.max()) + 1
    rows, columns = np.meshgrid(np.arange(40, 52), np.arange(40, 60), indexing="ij")
    labels.data_setitem((rows.ravel(), columns.ravel()), new)
    state = controller.correct.state
    until(lambda: state.counts.any and not state.pending and not state.unsaved)
    print("saved", new, flush=True)
    until(lambda: False)


main()
