"""The dialog of a new model: its name, and those of the classes that it learns."""

from __future__ import annotations

from qtpy.QtWidgets import QDialog, QDialogButtonBox, QFormLayout, QLineEdit, QVBoxLayout, QWidget

from napari_xlstm_unet.new_model_part import NewModelPart
from napari_xlstm_unet.qt_tools import remark


class NewModelDialog(QDialog):
    """Name and classes.

    Parameters
    ----------
    part
        What is behind it.
    parent
        Widget that it opens over.
    """

    def __init__(self, part: NewModelPart, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("New model")
        self.setMinimumWidth(440)
        self._part = part
        about = remark()
        about.setText(
            f"The new model begins as '{part.root}' and learns further classes from your corrections: give "
            f"them names, press Make, then Fine-tune. '{part.root}' stays as it is."
        )
        self.name = QLineEdit(f"{part.root}-more"[:64])
        self.labels = QLineEdit(", ".join(part.names()))
        self.labels.setToolTip("In the order of their values, with commas.")
        form = QFormLayout()
        form.addRow("Name", self.name)
        form.addRow("New classes", self.labels)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.make = self.buttons.addButton("Make", QDialogButtonBox.ButtonRole.AcceptRole)
        self.buttons.accepted.connect(self._accept)
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        layout.addLayout(form)
        layout.addWidget(self.buttons)

    def _accept(self) -> None:
        labels = [name.strip() for name in self.labels.text().split(",") if name.strip()]
        self.accept()
        self._part.make(self.name.text().strip(), labels)
