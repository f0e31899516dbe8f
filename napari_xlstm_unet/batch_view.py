"""The window that asks for a folder of images."""

from __future__ import annotations

from qtpy.QtWidgets import (
    QCheckBox,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.batch_part import BatchPart
from napari_xlstm_unet.qt_tools import folder_field, remark


class BatchDialog(QDialog):
    """Source, target, and whether to measure; progress is shown in the dock."""

    def __init__(self, part: BatchPart, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Segment a folder")
        self.setMinimumWidth(460)
        self._part = part
        state = part.state
        about = remark()
        about.setText("Every image is segmented with the model and the settings of the dock.")
        self.source, self.target = QLineEdit(state.source), QLineEdit(state.target)
        self.measure = QCheckBox("also write a table of measurements (CSV) for each image")
        self.measure.setChecked(state.measure)
        form = QFormLayout()
        form.addRow("Images in", folder_field(self.source, self))
        form.addRow("Labels to", folder_field(self.target, self))
        form.addRow("", self.measure)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.start = self.buttons.addButton("Segment all", QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        layout.addLayout(form)
        layout.addWidget(self.buttons)
        self.source.textChanged.connect(part.choose_source)
        state.events.target.connect(self.target.setText)

    def _accept(self) -> None:
        state = self._part.state
        state.source, state.target = self.source.text().strip(), self.target.text().strip()
        state.measure = self.measure.isChecked()
        self.accept()
        self._part.start()
