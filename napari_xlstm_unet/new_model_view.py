"""The dialog of a new model: where its training data go, and what to type."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import (
    QApplication,
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QLineEdit,
    QPlainTextEdit,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.new_model_part import NewModel, NewModelPart
from napari_xlstm_unet.qt_tools import folder_field, remark

_ABOUT = (
    "A model finds what it was made for. For other classes a new one is trained, from the weights of "
    "this one. Every pixel counts as truth there, so label some images whole first. 'Write' puts this image "
    "and its labels into the folder, beside those written before; then run the command in a terminal."
)


class NewModelDialog(QDialog):
    """Folder, name, classes, and the command.

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
        self.setMinimumWidth(520)
        self._part = part
        about = remark()
        about.setText(_ABOUT)
        self.folder = QLineEdit(str(Path.home() / "xlstm-unet-training"))
        self.name = QLineEdit(f"{part.root}-more")
        self.labels = QLineEdit(", ".join(part.names()))
        form = QFormLayout()
        form.addRow("Folder", folder_field(self.folder, self))
        form.addRow("Name", self.name)
        form.addRow("Classes", self.labels)
        self.command = QPlainTextEdit()
        self.command.setReadOnly(True)
        self.command.setFixedHeight(70)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self.write = self.buttons.addButton("Write", QDialogButtonBox.ButtonRole.ActionRole)
        self.copy = self.buttons.addButton("Copy command", QDialogButtonBox.ButtonRole.ActionRole)
        self.write.clicked.connect(lambda: part.write(self.wanted()))
        self.copy.clicked.connect(lambda: QApplication.clipboard().setText(self.command.toPlainText()))
        self.buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(about)
        layout.addLayout(form)
        layout.addWidget(self.command)
        layout.addWidget(self.buttons)
        for line in (self.folder, self.name, self.labels):
            line.textChanged.connect(self._show)
        self._show()

    def wanted(self) -> NewModel:
        """Return what the fields say."""
        labels = tuple(name.strip() for name in self.labels.text().split(",") if name.strip())
        return NewModel(Path(self.folder.text().strip()), self.name.text().strip(), labels)

    def _show(self) -> None:
        self.command.setPlainText(self.wanted().command(self._part.root))
