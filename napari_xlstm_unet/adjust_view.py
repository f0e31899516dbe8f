"""What the dock shows of the sliders that decode the kept maps again."""

from __future__ import annotations

from qtpy.QtCore import QSignalBlocker, Qt
from qtpy.QtWidgets import QPushButton
from superqt import QLabeledDoubleSlider, QLabeledSlider

from napari_xlstm_unet.adjust_part import AdjustPart
from napari_xlstm_unet.qt_tools import Section, remark
from napari_xlstm_unet.state import JobState

LARGEST_MIN_SIZE = 500
SLIDER_WIDTH = 100

_TIPS = {
    "threshold": "Pixels that the model finds at least this likely belong to objects: lower finds more.",
    "seed_height": "How deep the dip between two objects must be: lower splits more, higher joins more.",
    "min_size": "Objects of fewer pixels are left out.",
}


class AdjustView(Section):
    """Three sliders, the number of objects, and a way back to the model's own settings."""

    def __init__(self, part: AdjustPart, job: JobState) -> None:
        super().__init__("Adjust")
        self._part = part
        self.about = remark()
        self.threshold = _decimal_slider(0.02, 0.98)
        self.seed_height = _decimal_slider(0.01, 0.6)
        self.min_size = QLabeledSlider(Qt.Orientation.Horizontal)
        self.min_size.setRange(0, LARGEST_MIN_SIZE)
        self.min_size.setMinimumWidth(SLIDER_WIDTH)
        self.reset = QPushButton("Reset")
        self.reset.setToolTip("Back to the model's own settings.")
        self.form.addRow(self.about)
        self.row("Threshold", self.threshold, _TIPS["threshold"])
        self.row("Seed height", self.seed_height, _TIPS["seed_height"])
        self.row("Minimum size", self.min_size, _TIPS["min_size"])
        self.form.addRow("", self.reset)
        self.threshold.valueChanged.connect(lambda value: part.adjust(threshold=round(value, 3)))
        self.seed_height.valueChanged.connect(lambda value: part.adjust(seed_height=round(value, 3)))
        self.min_size.valueChanged.connect(lambda value: part.adjust(min_size=value))
        self.reset.clicked.connect(part.reset)
        part.state.events.connect(self._show)
        job.events.phase.connect(lambda: self.setEnabled(not job.busy))
        self._show()

    def _show(self) -> None:
        state = self._part.state
        self.setVisible(state.available)
        values = (
            (self.threshold, state.threshold),
            (self.seed_height, state.seed_height),
            (self.min_size, state.min_size),
        )
        for slider, value in values:
            if slider.value() != value:
                with QSignalBlocker(slider):
                    slider.setValue(value)
        objects = f"{state.count} object{'s' * (state.count != 1)}"
        self.about.setText(f"{state.layer}: {objects}" + ("…" if state.pending else ""))


def _decimal_slider(low: float, high: float) -> QLabeledDoubleSlider:
    slider = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    slider.setRange(low, high)
    slider.setSingleStep(0.01)
    slider.setDecimals(2)
    slider.setMinimumWidth(SLIDER_WIDTH)
    return slider
