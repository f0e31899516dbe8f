"""Small Qt pieces that the views share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qtpy.QtCore import QObject, QSignalBlocker, Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

Call = Callable[[], None]


LABEL_WIDTH = 78

_STYLE = (
    "QPushButton {{ background: {0}; color: white; font-weight: bold; padding: 6px; border-radius: 3px; }}"
    "QPushButton:hover {{ background: {1}; }} QPushButton:disabled {{ background: #4a5058; color: #9a9fa5; }}"
)
GO, STOP = _STYLE.format("#1f6fb5", "#2b83d0"), _STYLE.format("#a8433c", "#c0524a")
"""Style of the buttons that start and end work."""


class MainThread(QObject):
    """Runs calls on the thread that it was made on; `post` may be called from any thread."""

    _posted = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._posted.connect(self._run, Qt.ConnectionType.QueuedConnection)

    def post(self, call: Call) -> None:
        """Run ``call`` soon, on this object's thread; nothing happens once the object is gone."""
        try:
            self._posted.emit(call)
        except RuntimeError:  # the window has been deleted meanwhile
            return

    def _run(self, call: Call) -> None:
        call()


class Section(QWidget):
    """A titled part of the dock with rows of fields."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self.title = QLabel(title)
        self.title.setStyleSheet("font-weight: bold; font-size: 11pt; padding-top: 4px;")
        self.form = QFormLayout()
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setHorizontalSpacing(8)
        self.form.setVerticalSpacing(5)
        self.form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.title)
        layout.addLayout(self.form)

    def row(self, label: str, field: QWidget, tip: str = "") -> None:
        """Add a row; labels are equally wide in all sections."""
        text = QLabel(label)
        text.setMinimumWidth(LABEL_WIDTH)
        self.form.addRow(text, field)
        for widget in (text, field):
            widget.setToolTip(tip)

    def show_row(self, field: QWidget, visible: bool) -> None:
        """Show or hide the row of ``field``."""
        self.form.setRowVisible(field, visible)


def remark() -> QLabel:
    """Return a small wrapping label in muted colour."""
    label = QLabel()
    label.setWordWrap(True)
    label.setStyleSheet("color: #909aa5; font-size: 9pt;")
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Minimum)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label


def combo() -> QComboBox:
    """Return a list that does not widen the dock for a long entry."""
    box = QComboBox()
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    return box


def fill(box: QComboBox, entries: Iterable[tuple[str, object]], current: object) -> None:
    """Set the entries (text, value) of a list and its current value, without telling anyone."""
    blocker = QSignalBlocker(box)
    box.clear()
    for text, value in entries:
        box.addItem(text, value)
    choose(box, current)
    blocker.unblock()


def choose(box: QComboBox, value: object) -> None:
    """Show the entry of ``value``, without telling anyone."""
    blocker = QSignalBlocker(box)
    places = [place for place in range(box.count()) if box.itemData(place) == value]
    box.setCurrentIndex(places[0] if places else -1)
    blocker.unblock()


def folder_field(line: QLineEdit, parent: QWidget) -> QWidget:
    """Return ``line`` with a button beside it that chooses a folder for it."""

    def browse() -> None:
        folder = QFileDialog.getExistingDirectory(parent, "Choose a folder", line.text())
        if folder:
            line.setText(folder)

    both = QWidget()
    layout = QHBoxLayout(both)
    layout.setContentsMargins(0, 0, 0, 0)
    button = QPushButton("Choose…")
    button.setAutoDefault(False)
    button.clicked.connect(browse)
    layout.addWidget(line, 1)
    layout.addWidget(button)
    return both
