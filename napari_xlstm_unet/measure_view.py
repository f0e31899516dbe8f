"""The table of measurements: sortable, a row leads to its object, and it can be saved as CSV."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.measure_part import MeasurePart
from napari_xlstm_unet.qt_tools import remark
from napari_xlstm_unet.state import MeasureState


class MeasureTable(QAbstractTableModel):
    """The rows of a `MeasureState`, for a table view of any length."""

    def __init__(self, state: MeasureState) -> None:
        super().__init__()
        self._state = state

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of objects."""
        return len(self._state.rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of quantities."""
        return len(self._state.columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return a cell: text to show, or the number to sort by."""
        value = self._state.rows[index.row()][index.column()]
        if role == Qt.ItemDataRole.DisplayRole:
            return str(value) if isinstance(value, int) else f"{value:.5g}"
        if role == Qt.ItemDataRole.UserRole:
            return value
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:
        """Return the name of a column."""
        if role == Qt.ItemDataRole.DisplayRole and orientation == Qt.Orientation.Horizontal:
            return self._state.columns[section]
        return None

    def reload(self) -> None:
        """Show other rows."""
        self.beginResetModel()
        self.endResetModel()


class MeasureView(QWidget):
    """Table and buttons.

    Parameters
    ----------
    part
        What was measured.
    show_object
        Called with the label of a row that was clicked.
    """

    def __init__(self, part: MeasurePart, show_object: Callable[[int], None]) -> None:
        super().__init__()
        self._part = part
        self._show_object = show_object
        self._model = MeasureTable(part.state)
        self._sorted = QSortFilterProxyModel()
        self._sorted.setSourceModel(self._model)
        self._sorted.setSortRole(Qt.ItemDataRole.UserRole)
        self.table = QTableView()
        self.table.setModel(self._sorted)
        self.table.setSortingEnabled(True)
        self.table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.verticalHeader().hide()
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        self.table.clicked.connect(self._clicked)
        self.title = remark()
        self.save = QPushButton("Save as CSV…")
        self.save.clicked.connect(self._save)
        line = QHBoxLayout()
        line.addWidget(self.title, 1)
        line.addWidget(self.save)
        layout = QVBoxLayout(self)
        layout.addWidget(self.table)
        layout.addLayout(line)
        part.state.events.pending.connect(self._refresh)
        self._refresh()

    def _refresh(self) -> None:
        state = self._part.state
        self._model.reload()
        text = f"{state.layer}: {len(state.rows)} objects. Click a row to go to its object."
        self.title.setText("Measuring…" if state.pending else text)
        self.save.setEnabled(bool(state.columns) and not state.pending)

    def _clicked(self, index: QModelIndex) -> None:
        place = self._sorted.mapToSource(index).row()
        self._show_object(int(self._part.state.rows[place][0]))

    def _save(self) -> None:
        name = f"{self._part.state.layer}.csv".replace("/", "_")
        path, _ = QFileDialog.getSaveFileName(self, "Save measurements", name, "CSV (*.csv)")
        if path:
            self._part.write(path)
