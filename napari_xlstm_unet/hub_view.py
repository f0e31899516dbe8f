"""The window "Models": what is here, the Hub, and the card of the selected model."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QMessageBox,
    QProgressBar,
    QPushButton,
    QSplitter,
    QTabWidget,
    QTextBrowser,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.hub_part import ASK_BYTES, HubPart
from napari_xlstm_unet.hub_state import HubModel, HubPhase
from napari_xlstm_unet.qt_tools import remark

_KEY = Qt.ItemDataRole.UserRole


class CardView(QTextBrowser):
    """A model card; it comes from strangers, so nothing that it names is loaded."""

    def loadResource(self, kind: int, name: Any) -> Any:
        """Load nothing."""
        return None


class ModelsDialog(QDialog):
    """Two lists and a card.

    Parameters
    ----------
    part
        What is behind it.
    parent
        Widget that it opens over.
    """

    def __init__(self, part: HubPart, parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Models")
        self.resize(820, 560)
        self._part = part
        self.tabs = QTabWidget()
        self.tabs.addTab(self._here(), "On this computer")
        self.tabs.addTab(self._hub(), "On the Hub")
        self.facts = QLabel()
        self.facts.setTextFormat(Qt.TextFormat.PlainText)
        self.facts.setWordWrap(True)
        self.card = CardView()
        self.card.setOpenExternalLinks(True)
        lower = QWidget()
        lower_layout = QVBoxLayout(lower)
        lower_layout.setContentsMargins(0, 0, 0, 0)
        lower_layout.addWidget(self.facts)
        lower_layout.addWidget(self.card)
        both = QSplitter(Qt.Orientation.Vertical)
        both.addWidget(self.tabs)
        both.addWidget(lower)
        both.setSizes([230, 330])
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.status = remark()
        layout = QVBoxLayout(self)
        layout.addWidget(both, 1)
        layout.addWidget(self.progress)
        layout.addWidget(self.status)
        part.state.events.connect(self._show)
        part.model.state.events.models.connect(self._show_here)
        self.finished.connect(self._let_go)
        self._show_here()
        self._show_results()
        self._show()

    def _here(self) -> QWidget:
        self.here = _tree(["Name", "From", "Licence", "Size"])
        self.use, self.remove = QPushButton("Use"), QPushButton("Remove…")
        self.remove.setToolTip("Delete the model's files from this computer.")
        self.here.itemSelectionChanged.connect(lambda: self._selected(self.here))
        self.here.itemDoubleClicked.connect(self._use)
        self.use.clicked.connect(self._use)
        self.remove.clicked.connect(self._remove)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.addWidget(self.here)
        layout.addLayout(_row(self.use, self.remove))
        return page

    def _hub(self) -> QWidget:
        self.query = QLineEdit()
        self.query.setPlaceholderText("nuclei, hippocampus, … (empty: all)")
        self.search = QPushButton("Search")
        self.found = _tree(["Model", "Licence", "Downloads", "Here as"])
        self.fetch, self.cancel = QPushButton("Download"), QPushButton("Cancel")
        self.query.returnPressed.connect(self._search)
        self.search.clicked.connect(self._search)
        self.search.setAutoDefault(False)
        self.found.itemSelectionChanged.connect(lambda: self._selected(self.found))
        self.fetch.clicked.connect(self._fetch)
        self.cancel.clicked.connect(self._part.cancel)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.addLayout(_row(self.query, self.search))
        layout.addWidget(self.found)
        layout.addLayout(_row(self.fetch, self.cancel))
        self._part.state.events.results.connect(self._show_results)
        return page

    def _search(self) -> None:
        self._part.search(self.query.text())

    def _use(self) -> None:
        if name := _chosen(self.here):
            self._part.model.choose(name)
            self.accept()

    def _remove(self) -> None:
        name = _chosen(self.here)
        if name and self._agreed("Remove", f"Remove '{name}' and its files from this computer?"):
            self._part.remove(name)

    def _fetch(self) -> None:
        name, card = _chosen(self.found), self._part.state.card
        size = card.size_bytes if card is not None and card.name == name else 0
        question = f"'{name}' is {size / 1e6:.0f} MB. Download it?"
        if name and (size <= ASK_BYTES or self._agreed("Download", question)):
            self._part.fetch(name, size)

    def _agreed(self, title: str, question: str) -> bool:
        return bool(QMessageBox.question(self, title, question) == QMessageBox.StandardButton.Yes)

    def _selected(self, tree: QTreeWidget) -> None:
        if name := _chosen(tree):
            self._part.show(name)
        self._show()

    def _show(self) -> None:
        state = self._part.state
        busy = state.phase is not HubPhase.IDLE
        card = state.card
        self.facts.setText(card.facts if card is not None else "Select a model to see its card.")
        text = card.text if card is not None else ""
        if text != self.card.property("shown"):
            self.card.setProperty("shown", text)
            self.card.setMarkdown(text)
        self.status.setText(state.status)
        self.progress.setVisible(busy)
        self.progress.setRange(0, 1000 if state.progress else 0)
        self.progress.setValue(round(1000 * state.progress))
        self.search.setEnabled(not busy)
        self.fetch.setEnabled(not busy and bool(_chosen(self.found)))
        self.cancel.setEnabled(state.phase in (HubPhase.SEARCHING, HubPhase.FETCHING))
        info = next((m for m in self._part.model.state.models if m.name == _chosen(self.here)), None)
        self.use.setEnabled(info is not None and not info.problem)
        self.remove.setEnabled(info is not None and info.origin != "embedded")

    def _show_here(self) -> None:
        self.here.clear()
        for info in self._part.model.state.models:
            row = [info.name, info.provenance, info.licence, f"{info.size_bytes / 1e6:.1f} MB"]
            self.here.addTopLevelItem(_item(row, info.name, info.problem))
        self._show()

    def _show_results(self) -> None:
        self.found.clear()
        for model in self._part.state.results:
            self.found.addTopLevelItem(_item(_columns(model), model.repo))

    def _let_go(self) -> None:
        self._part.cancel()
        self._part.state.events.disconnect(self._show)
        self._part.state.events.results.disconnect(self._show_results)
        self._part.model.state.events.models.disconnect(self._show_here)
        self.deleteLater()


def _columns(model: HubModel) -> list[str]:
    marks = " (this project's)" * model.published + " (terms to accept)" * model.gated
    return [model.repo + marks, model.licence, str(model.downloads), model.installed]


def _tree(titles: list[str]) -> QTreeWidget:
    tree = QTreeWidget()
    tree.setHeaderLabels(titles)
    tree.setRootIsDecorated(False)
    tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    tree.header().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    tree.header().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
    return tree


def _item(columns: list[str], key: str, problem: str = "") -> QTreeWidgetItem:
    item = QTreeWidgetItem(columns)
    item.setData(0, _KEY, key)
    if problem:
        item.setText(1, "damaged")
        item.setToolTip(1, problem)
    return item


def _chosen(tree: QTreeWidget) -> str:
    items = tree.selectedItems()
    return str(items[0].data(0, _KEY)) if items else ""


def _row(*widgets: QWidget) -> QHBoxLayout:
    line = QHBoxLayout()
    for widget in widgets:
        line.addWidget(widget)
    return line
