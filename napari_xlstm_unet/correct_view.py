"""What the dock shows of the part "Correct": counts, accepting, the overlay, what an earlier session left."""

from __future__ import annotations

from functools import partial

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton

from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.image_part import ImagePart
from napari_xlstm_unet.learn_state import Counts
from napari_xlstm_unet.new_model_part import NewModelPart
from napari_xlstm_unet.new_model_view import NewModelDialog
from napari_xlstm_unet.qt_tools import Section, remark
from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.restore_part import RestorePart

_HOW = (
    "Press Segment first. Then correct the result with the label tools (brush, fill, eraser, pick): what you "
    "change is what the model learns from. No need to correct everything."
)
_TIPS = {
    "visible": "Everything on the screen, in this slice, is right as it stands: objects and background.",
    "box": "Everything in the rectangle of a Shapes layer is right as it stands.",
    "clear": "Take back what was accepted in this layer. What you corrected stays.",
    "overlay": "A layer over the result: orange is corrected, green accepted, nothing untouched.",
}


class CorrectView(Section):
    """Counts, three buttons, the overlay, and offers."""

    def __init__(
        self, part: CorrectPart, image: ImagePart, restore: RestorePart, new_model: NewModelPart
    ) -> None:
        super().__init__("Correct and fine-tune")
        self._part = part
        self.counts = QLabel()
        self.counts.setWordWrap(True)
        self.about = remark()
        self.visible_button = _button("Accept visible", _TIPS["visible"])
        self.box_button = _button("Accept box", _TIPS["box"])
        self.clear_button = _button("Clear", _TIPS["clear"])
        self.overlay = QCheckBox("show what is corrected, accepted")
        self.overlay.setToolTip(_TIPS["overlay"])
        self.beyond = remark()
        self.new_model = _button("New model…", "A model with more classes, that starts from this one.")
        self.found = remark()
        self.restore_button = _button("Restore", "Show them in a new layer and go on from there.")
        buttons = QHBoxLayout()
        for button in (self.visible_button, self.box_button, self.clear_button):
            buttons.addWidget(button)
        layout = self.layout()
        for item in (self.found, self.restore_button, self.counts, self.about):
            layout.addWidget(item)
        layout.addLayout(buttons)
        for item in (self.overlay, self.beyond, self.new_model):
            layout.addWidget(item)
        self.new_model.clicked.connect(lambda: NewModelDialog(new_model, self).open())
        self.visible_button.clicked.connect(partial(part.accept, Region.VISIBLE))
        self.box_button.clicked.connect(lambda: part.accept(Region.BOX, image.state.box))
        self.clear_button.clicked.connect(part.withdraw)
        self.overlay.toggled.connect(lambda on: setattr(part.state, "overlay", on))
        self.restore_button.clicked.connect(restore.restore)
        part.state.events.connect(self._show)
        self._show()

    def _show(self) -> None:
        state = self._part.state
        self.counts.setText(_in_words(state.counts, pending=state.pending))
        self.counts.setVisible(state.available)
        self.about.setText(_about(state.available, state.counts, unsaved=state.unsaved))
        for widget in (self.visible_button, self.box_button, self.overlay):
            widget.setEnabled(state.available)
        self.clear_button.setEnabled(state.available and state.counts.any)
        with QSignalBlocker(self.overlay):
            self.overlay.setChecked(state.overlay)
        values = ", ".join(str(value) for value in state.beyond)
        self.beyond.setText(f"{state.model} does not know label {values}: that takes a new model.")
        for widget in (self.beyond, self.new_model):
            widget.setVisible(bool(state.beyond))
        self.found.setText(state.found)
        for widget in (self.found, self.restore_button):
            widget.setVisible(bool(state.found))


def _in_words(counts: Counts, *, pending: bool) -> str:
    text = f"<b>{counts.corrected}</b> corrected, <b>{counts.accepted}</b> accepted"
    return text + ("…" if pending else "")


def _about(available: bool, counts: Counts, *, unsaved: bool) -> str:
    if not available:
        return _HOW
    kinds = ", ".join(f"{count} {kind}" for kind, count in counts.kinds)
    saved = "" if not counts.any else ("not saved yet" if unsaved else "saved")
    return "; ".join(part for part in (kinds, saved) if part) or "Nothing corrected or accepted yet."


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setToolTip(tip)
    return button
