"""What the dock shows of versions: which one is the model, a way back, and forgetting corrections."""

from __future__ import annotations

from datetime import datetime

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.learn_state import SavedCorrections, Version
from napari_xlstm_unet.qt_tools import combo, fill, remark
from napari_xlstm_unet.state import JobState, Phase
from napari_xlstm_unet.versions_part import VersionsPart


class VersionsView(QWidget):
    """A list of versions, Undo, and the corrections that there are."""

    def __init__(self, part: VersionsPart, job: JobState) -> None:
        super().__init__()
        self._part = part
        self._job = job
        self.versions = combo()
        self.versions.setToolTip("Which version of the model is used. Nothing is lost by going back.")
        self.undo = QPushButton("Undo")
        self.undo.setToolTip("Back to the version before, bit for bit.")
        self.corrections = QPushButton("Corrections…")
        self.corrections.setToolTip("What the model can learn from, image by image; forget what you like.")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.versions, 1)
        layout.addWidget(self.undo)
        layout.addWidget(self.corrections)
        self.versions.activated.connect(lambda place: part.use(self.versions.itemData(place)))
        self.undo.clicked.connect(part.undo)
        self.corrections.clicked.connect(lambda: CorrectionsDialog(part, self).open())
        part.state.events.connect(self._show)
        job.events.phase.connect(self._show)
        self._show()

    def _show(self) -> None:
        state = self._part.state
        ready = self._job.phase is Phase.READY
        fill(self.versions, [(_title(v, state.root), v.number) for v in state.versions], state.current)
        for place, version in enumerate(state.versions):
            self.versions.setItemData(place, _tip(version), Qt.ItemDataRole.ToolTipRole)
        self.versions.setEnabled(ready)
        self.undo.setEnabled(ready and state.current > 0)
        self.corrections.setEnabled(ready)
        for widget in (self.versions, self.undo):
            widget.setVisible(bool(state.versions))
        self.corrections.setVisible(bool(state.corrections or state.versions))


class CorrectionsDialog(QDialog):
    """The stored corrections of a model, image by image, with boxes to tick.

    Parameters
    ----------
    part
        The versions and their corrections.
    parent
        Widget that it opens over.
    """

    def __init__(self, part: VersionsPart, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Corrections")
        self.setMinimumSize(560, 320)
        self._part = part
        about = remark()
        about.setText(
            "They lie on this computer only, and never travel with a model. Forgotten ones are erased; "
            "fine-tune again for a version that has not learned from them."
        )
        self.tree = QTreeWidget()
        self.tree.setHeaderLabels(["Image", "What", "Saved", "Size"])
        self.tree.setRootIsDecorated(False)
        for entry in part.state.corrections:
            self.tree.addTopLevelItem(_item(entry))
        for column in range(4):
            self.tree.resizeColumnToContents(column)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self.forget = self.buttons.addButton("Forget these", QDialogButtonBox.ButtonRole.DestructiveRole)
        self.forget.clicked.connect(self._forget)
        self.buttons.rejected.connect(self.reject)
        self.tree.itemChanged.connect(lambda: self.forget.setEnabled(bool(self.chosen())))
        self.forget.setEnabled(False)
        layout = QVBoxLayout(self)
        for widget in (about, self.tree, self.buttons):
            layout.addWidget(widget)

    def chosen(self) -> list[str]:
        """Return the ids that are ticked."""
        items = [self.tree.topLevelItem(row) for row in range(self.tree.topLevelItemCount())]
        return [
            item.data(0, Qt.ItemDataRole.UserRole)
            for item in items
            if item.checkState(0) == Qt.CheckState.Checked
        ]

    def _forget(self) -> None:
        self._part.forget(self.chosen())
        self.accept()


def _item(entry: SavedCorrections) -> QTreeWidgetItem:
    what = entry.problem or str(entry.counts)
    item = QTreeWidgetItem([entry.image, what, _when(entry.saved), f"{entry.size_bytes / 1e6:.1f} MB"])
    item.setCheckState(0, Qt.CheckState.Unchecked)
    item.setData(0, Qt.ItemDataRole.UserRole, entry.id)
    return item


def _title(version: Version, root: str) -> str:
    if version.number == 0:
        return f"0: {root}, as it was"
    return f"{version.number}: {version.counts.corrected} corrected, {version.counts.accepted} accepted"


def _tip(version: Version) -> str:
    lines = [version.message, f"{version.steps} steps in {version.seconds:.0f} s" if version.steps else ""]
    if version.parent is not None:
        lines.append(f"Made after version {version.parent}, {_when(version.created)}.")
    return "\n".join(line for line in lines if line)


def _when(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%d %b, %H:%M") if time else ""
