"""What the dock shows of fine-tuning: budget, buttons, the live curve, before and after, Keep and Discard."""

from __future__ import annotations

from functools import partial
from html import escape

from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_xlstm_unet.curve import CurveView
from napari_xlstm_unet.finetune_part import FinetunePart
from napari_xlstm_unet.learn_state import BUDGETS, CorrectState, Score, Shown, Training, Version
from napari_xlstm_unet.qt_tools import GO, STOP, choose, combo, fill, remark
from napari_xlstm_unet.state import JobState, Phase

_VERDICTS = {
    "keep": ("The guard has no objection.", "#52b267"),
    "warn": ("It may have forgotten a little of what it knew.", "#f0b429"),
    "refuse": ("It has forgotten too much of what it knew.", "#e0655c"),
    "too-few": ("Too few corrections to judge: look at the images.", "#f0b429"),
}
_TIPS = {
    "go": "Learns from all corrections of this model, always from the original weights. Nothing is replaced "
    "until you press Keep.",
    "stop": "End now with the best so far.",
    "cancel": "End now and drop what was learned.",
    "keep": "The new version becomes the model; Undo brings the old one back.",
    "force": "Against the advice above. Undo brings the old one back.",
    "discard": "The model stays as it was; your corrections stay too.",
}


class FinetuneView(QWidget):
    """Fields and buttons of fine-tuning."""

    def __init__(self, part: FinetunePart, job: JobState, correct: CorrectState) -> None:
        super().__init__()
        self._part = part
        self._job = job
        self._correct = correct
        self.material = remark()
        self.budget = combo()
        fill(self.budget, [(text, seconds) for seconds, text in BUDGETS], part.state.budget)
        self.budget.setToolTip("How long it may take. More images and harder changes want more time.")
        self.go, self.stop, self.cancel = _button("go", "Fine-tune"), _button("stop"), _button("cancel")
        self.go.setStyleSheet(GO)
        self.cancel.setStyleSheet(STOP)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.progress.setRange(0, 1000)
        self.curve = CurveView()
        self.status = remark()
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.scores = remark()
        self.keep, self.discard = _button("keep"), _button("discard")
        self._lay_out()
        self.budget.activated.connect(lambda n: setattr(part.state, "budget", self.budget.itemData(n)))
        self.go.clicked.connect(part.start)
        self.stop.clicked.connect(part.stop)
        self.cancel.clicked.connect(part.cancel)
        self.keep.clicked.connect(part.keep)
        self.discard.clicked.connect(part.discard)
        part.state.events.connect(self._show)
        job.events.phase.connect(self._show)
        correct.events.connect(self._show_material)
        self._show()
        self._show_material()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.material)
        layout.addLayout(_line(self.budget, self.go, self.stop, self.cancel))
        for widget in (self.progress, self.curve, self.status, self.verdict, self.scores):
            layout.addWidget(widget)
        self.shown = QWidget()
        line = QHBoxLayout(self.shown)
        line.setContentsMargins(0, 0, 0, 0)
        group = QButtonGroup(self)
        self.shows: dict[Shown, QPushButton] = {}
        tips = {
            Shown.MINE: "Your own layer, as you left it.",
            Shown.BEFORE: "What the model gave for this image.",
            Shown.AFTER: "What the new version gives for it.",
        }
        for shown in (Shown.BEFORE, Shown.AFTER, Shown.MINE):
            button = self.shows[shown] = QPushButton(str(shown))
            button.setCheckable(True)
            button.setToolTip(tips[shown])
            button.clicked.connect(partial(setattr, self._part.state, "shown", shown))
            group.addButton(button)
            line.addWidget(button)
        layout.addWidget(self.shown)
        layout.addLayout(_line(self.keep, self.discard))

    def _show(self) -> None:
        state = self._part.state
        training = state.phase in (Training.RUNNING, Training.STOPPING, Training.CANCELLING)
        judging = state.phase is Training.JUDGING
        self.budget.setVisible(not training)
        choose(self.budget, state.budget)
        self.go.setVisible(not training)
        self.go.setText("Fine-tune again" if judging else "Fine-tune")
        _style(self.go, "" if judging else GO)
        self.go.setEnabled(self._job.phase is Phase.READY and not state.busy)
        for button in (self.stop, self.cancel):
            button.setVisible(training)
        self.stop.setEnabled(state.phase is Training.RUNNING and bool(state.curve.loss))
        self.cancel.setEnabled(state.phase in (Training.RUNNING, Training.STOPPING))
        self.progress.setRange(0, 1000 if state.curve.loss and state.phase is Training.RUNNING else 0)
        self.progress.setValue(round(1000 * state.progress))
        self.progress.setVisible(state.busy)
        self.curve.setVisible(bool(state.curve.loss or state.curve.check or state.curve.held_out))
        self.curve.show_curve(state.curve, state.budget)
        self.status.setText(state.status)
        self.status.setVisible(bool(state.status))
        self._show_judgement(state.pending if judging else None)
        self.shown.setVisible(judging and state.can_compare)
        self.shows[state.shown].setChecked(True)

    def _show_judgement(self, version: Version | None) -> None:
        for widget in (self.verdict, self.scores, self.keep, self.discard):
            widget.setVisible(version is not None)
        if version is None:
            return
        title, colour = _VERDICTS.get(version.verdict, ("", "#aab2bc"))
        self.verdict.setText(f"<b style='color: {colour}'>{title}</b>")
        lines = [version.message, *version.notes]
        self.scores.setText("<br>".join(escape(line) for line in lines if line))
        measured = (_score(score) for score in (version.held_out, version.check) if score is not None)
        self.scores.setToolTip("\n".join(measured))
        refused = version.verdict == "refuse"
        self.keep.setText("Keep anyway" if refused else "Keep")
        self.keep.setToolTip(_TIPS["force" if refused else "keep"])
        _style(self.keep, "" if refused else GO)
        self.keep.setEnabled(self._job.phase is Phase.READY)

    def _show_material(self) -> None:
        state = self._correct
        images = f"{state.images} image{'s' * (state.images != 1)}"
        total = f"{state.total.corrected} corrected and {state.total.accepted} accepted objects"
        self.material.setText(f"{state.model} learns from {total} in {images}." if state.images else "")
        self.material.setVisible(bool(state.images))


def _score(score: Score) -> str:
    return (
        f"{score.name} ({score.count}): {score.before:.3f} → {score.after:.3f}, "
        f"change between {score.low:+.3f} and {score.high:+.3f} (95 %)"
    )


def _style(button: QPushButton, sheet: str) -> None:
    if button.styleSheet() != sheet:  # Qt lays the button out anew each time
        button.setStyleSheet(sheet)


def _button(name: str, text: str = "") -> QPushButton:
    button = QPushButton(text or name.capitalize())
    button.setToolTip(_TIPS[name])
    return button


def _line(*widgets: QWidget) -> QHBoxLayout:
    line = QHBoxLayout()
    for widget in widgets:
        line.addWidget(widget, 1)
    return line
