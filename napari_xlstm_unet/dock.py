"""The dock widget: shows the controller's state and passes on what the user does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QApplication,
    QFrame,
    QHBoxLayout,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.adjust_view import AdjustView
from napari_xlstm_unet.batch_view import BatchDialog
from napari_xlstm_unet.controller import Controller
from napari_xlstm_unet.correct_view import CorrectView
from napari_xlstm_unet.finetune_view import FinetuneView
from napari_xlstm_unet.measure_view import MeasureView
from napari_xlstm_unet.model_view import ModelView
from napari_xlstm_unet.qt_tools import MainThread
from napari_xlstm_unet.segment_view import SegmentView
from napari_xlstm_unet.versions_view import VersionsView

if TYPE_CHECKING:
    import napari


class Dock(QScrollArea):
    """The plugin's dock.

    Parameters
    ----------
    napari_viewer
        The viewer that it is opened in.
    """

    def __init__(self, napari_viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self._viewer = napari_viewer
        self._main_thread = MainThread()
        self.controller = controller = Controller(napari_viewer, self._main_thread.post)
        self.model = ModelView(controller.model, controller.hub)
        self.segment = SegmentView(controller.image, controller.segment)
        self.adjust = AdjustView(controller.adjust, controller.job)
        self.correct = CorrectView(
            controller.correct, controller.image, controller.restore, controller.new_model
        )
        self.finetune = FinetuneView(controller.finetune, controller.job, controller.correct.state)
        self.versions = VersionsView(controller.versions, controller.job)
        self._measurements: MeasureView | None = None
        body = QWidget()
        layout = QVBoxLayout(body)
        layout.setContentsMargins(8, 4, 8, 8)
        layout.setSpacing(8)
        for part in (self.model, _line(), self.segment, self.adjust):
            layout.addWidget(part)
        layout.addLayout(self._tools())
        for part in (_line(), self.correct, self.finetune, self.versions):
            layout.addWidget(part)
        layout.addStretch(1)
        self.setWidget(body)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setMinimumWidth(body.minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width())
        _close_with(self, controller)

    def _tools(self) -> QHBoxLayout:
        self.measure = QPushButton("Measure")
        self.measure.setToolTip(
            "Size, place and brightness of every object of the result, as you have left it."
        )
        self.measure.clicked.connect(self._measure)
        self.folder = QPushButton("Folder…")
        self.folder.setToolTip("Segment every image of a folder.")
        self.folder.clicked.connect(lambda: BatchDialog(self.controller.batch, self).open())
        line = QHBoxLayout()
        line.addWidget(self.measure)
        line.addWidget(self.folder)
        return line

    def _measure(self) -> None:
        self.controller.measure_result()
        if self.controller.measure.state.pending and self._measurements is None:
            self._measurements = MeasureView(self.controller.measure, self._show_object)
            self._measurements.destroyed.connect(self._forget_measurements)
            self._viewer.window.add_dock_widget(self._measurements, name="Measurements", area="bottom")

    def _forget_measurements(self) -> None:
        self._measurements = None

    def _show_object(self, label: int) -> None:
        """Select an object in its layer and bring it into view."""
        result = self.controller.adjust.result
        if result is None:
            return
        layer = result.layer
        places = np.argwhere(np.asarray(layer.data) == label)
        if len(places):
            layer.selected_label = label
            centre = layer.data_to_world(places[len(places) // 2])
            self._viewer.dims.point = (*self._viewer.dims.point[: -layer.ndim], *centre)
            scene = getattr(self._viewer, "scene", self._viewer)  # the camera's home since napari 0.9
            scene.camera.center = tuple(centre[-3:]) if len(centre) > 2 else (0.0, *centre)


def _close_with(dock: Dock, controller: Controller) -> None:
    """Close the controller when the dock goes, or napari ends; then nothing holds it."""
    application = QApplication.instance()

    def close() -> None:
        controller.close()
        application.aboutToQuit.disconnect(close)

    dock.destroyed.connect(close)
    application.aboutToQuit.connect(close)


def _line() -> QFrame:
    line = QFrame()
    line.setFrameShape(QFrame.Shape.HLine)
    line.setStyleSheet("color: #5a626c;")
    return line
