"""What the dock shows of the part "Segment": the image, how it is read, the button and the progress."""

from __future__ import annotations

from functools import partial
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import QSignalBlocker
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QWidget,
)

from napari_xlstm_unet.qt_tools import GO, STOP, Section, combo, fill, remark
from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.state import JobState, Phase, SegmentState

if TYPE_CHECKING:
    from napari_xlstm_unet.image_part import ImagePart
    from napari_xlstm_unet.segment_part import SegmentPart

_TIPS = {
    "axes": "How the layer is read, first axis to last: T time, C channel, Z slice, Y, X. Correct it here.",
    "channel": "Which channel the model looks at.",
    "level": "Which resolution of the pyramid is segmented.",
    "region": "Visible area: what is on the screen, in this slice. Box: a rectangle of a Shapes layer, "
    "through the whole stack.",
    "box": "Layer with the rectangle; with several, the selected one counts.",
    "diameter": "Typical width of the objects in pixels of the image. Estimated unless you set it.",
    "stack": "The model works slice by slice; objects that overlap from slice to slice get one label.",
}
_BUTTON = {
    Phase.STARTING: ("Starting…", False),
    Phase.READY: ("Segment", True),
    Phase.RUNNING: ("Cancel", True),
    Phase.TRAINING: ("Fine-tuning…", False),
    Phase.CANCELLING: ("Cancelling…", False),
    Phase.BROKEN: ("Start the worker", True),
}


_COLOURS = {"stop": "#e0655c", "warn": "#f0b429"}


class SegmentView(Section):
    """Fields of the image, the one button, progress and status."""

    def __init__(self, image: ImagePart, segment: SegmentPart) -> None:
        super().__init__("Segment")
        self._image = image
        self._segment = segment
        self._make_fields()
        self._make_button()
        self._connect_fields(image.state)
        self._follow(image.state, segment.job)

    def _make_fields(self) -> None:
        self.layers, self.axes, self.channels, self.levels = combo(), combo(), combo(), combo()
        self.regions, self.boxes = combo(), combo()
        self.reading = remark()
        self.stitch = QCheckBox("join objects across slices")
        self.auto_diameter = QCheckBox("estimate")
        self.diameter = QDoubleSpinBox()
        self.diameter.setRange(2, 2000)
        self.diameter.setDecimals(1)
        self.diameter.setSuffix(" px")
        self.diameter.setKeyboardTracking(False)
        self.diameters = QWidget()
        line = QHBoxLayout(self.diameters)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.diameter, 1)
        line.addWidget(self.auto_diameter)
        self.row("Image", self.layers, "Image layer to segment.")
        self.row("Axes", self.axes, _TIPS["axes"])
        self.form.addRow("", self.reading)
        self.row("Channel", self.channels, _TIPS["channel"])
        self.row("Resolution", self.levels, _TIPS["level"])
        self.row("Region", self.regions, _TIPS["region"])
        self.row("Box", self.boxes, _TIPS["box"])
        self.row("Diameter", self.diameters, _TIPS["diameter"])
        self.row("Stack", self.stitch, _TIPS["stack"])

    def _make_button(self) -> None:
        self.button = QPushButton()
        self.button.clicked.connect(self._segment.press)
        self.progress = QProgressBar()
        self.progress.setTextVisible(False)
        self.progress.setFixedHeight(6)
        self.progress.setRange(0, 1000)
        policy = self.progress.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.progress.setSizePolicy(policy)
        self.status = remark()
        self.fit = remark()
        for widget in (self.fit, self.button, self.progress, self.status):
            self.layout().addWidget(widget)

    def _connect_fields(self, state: SegmentState) -> None:
        self.layers.activated.connect(lambda place: self._image.choose(self.layers.itemData(place)))
        self.axes.activated.connect(lambda place: self._image.correct_axes(self.axes.itemData(place)))
        for name, box in (("channel", self.channels), ("level", self.levels), ("box", self.boxes)):
            box.activated.connect(partial(_to_state, state, name, box))
        # PySide6 hands an enum of strings back as a plain string
        self.regions.activated.connect(
            lambda place: setattr(state, "region", Region(self.regions.itemData(place)))
        )
        self.stitch.toggled.connect(lambda on: setattr(state, "stitch", on))
        self.auto_diameter.toggled.connect(lambda on: setattr(state, "auto_diameter", on))
        self.diameter.valueChanged.connect(lambda value: setattr(state, "diameter", value))

    def _follow(self, state: SegmentState, job: JobState) -> None:
        events = state.events
        for signals, show in (
            ((events.layers, events.layer), self._show_layers),
            ((events.axes, events.axes_choices, events.reading), self._show_axes),
            ((events.channel_choices, events.channel), self._show_channels),
            ((events.levels, events.level), self._show_levels),
            ((events.regions, events.region, events.boxes, events.box), self._show_regions),
            ((events.can_stitch, events.stitch), self._show_stitch),
            ((events.has_diameter, events.auto_diameter, events.diameter), self._show_diameter),
            ((events.findings,), self._show_fit),
            ((job.events.phase, job.events.progress, job.events.status), self._show_job),
        ):
            for signal in signals:
                signal.connect(show)
            show()

    def _show_layers(self) -> None:
        state = self._image.state
        fill(self.layers, [(name, name) for name in state.layers], state.layer)
        self.layers.setEnabled(bool(state.layers))
        self.layers.setPlaceholderText("open an image first")

    def _show_axes(self) -> None:
        state = self._image.state
        fill(self.axes, [(" ".join(axes), axes) for axes in state.axes_choices], state.axes)
        self.reading.setText(state.reading)
        self.show_row(self.axes, bool(state.axes_choices))
        self.show_row(self.reading, bool(state.reading))

    def _show_channels(self) -> None:
        state = self._image.state
        entries = [(choice.title, place) for place, choice in enumerate(state.channel_choices)]
        fill(self.channels, entries, state.channel)
        self.show_row(self.channels, len(entries) > 1)

    def _show_levels(self) -> None:
        state = self._image.state
        entries: list[tuple[str, object]] = [("as fits the model", -1)]
        entries += [(title, place) for place, title in enumerate(state.levels)]
        fill(self.levels, entries, state.level)
        self.show_row(self.levels, len(state.levels) > 1)

    def _show_regions(self) -> None:
        state = self._image.state
        fill(self.regions, [(str(region), region) for region in state.regions], state.region)
        fill(self.boxes, [(name, name) for name in state.boxes], state.box)
        self.boxes.setPlaceholderText("draw one in a Shapes layer")
        self.show_row(self.boxes, state.region is Region.BOX)

    def _show_stitch(self) -> None:
        state = self._image.state
        self.stitch.setChecked(state.stitch)
        self.show_row(self.stitch, state.can_stitch)

    def _show_diameter(self) -> None:
        state = self._image.state
        with QSignalBlocker(self.diameter), QSignalBlocker(self.auto_diameter):
            self.diameter.setValue(state.diameter)
            self.auto_diameter.setChecked(state.auto_diameter)
        self.diameter.setEnabled(not state.auto_diameter)
        self.show_row(self.diameters, state.has_diameter)

    def _show_fit(self) -> None:
        shown = [finding for finding in self._image.state.findings if finding.level in _COLOURS]
        lines = [
            f"<span style='color: {_COLOURS[finding.level]}'>{escape(finding.message)}</span> "
            f"{escape(finding.hint)}"
            for finding in shown
        ]
        self.fit.setText("<br>".join(lines))
        self.fit.setVisible(bool(shown))

    def _show_job(self) -> None:
        job = self._segment.job
        text, enabled = _BUTTON[job.phase]
        if self.button.text() != text:
            self.button.setText(text)
            self.button.setEnabled(enabled)
            self.button.setStyleSheet(STOP if job.phase is Phase.RUNNING else GO)
        waiting = job.phase in (Phase.STARTING, Phase.CANCELLING)
        self.progress.setRange(0, 0 if waiting else 1000)
        self.progress.setValue(round(job.progress * 1000))
        self.progress.setVisible(job.phase is Phase.RUNNING or waiting)
        self.status.setText(job.status)


def _to_state(state: SegmentState, name: str, box: QComboBox, place: int) -> None:
    setattr(state, name, box.itemData(place))
