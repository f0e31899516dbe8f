"""The table of measurements of a result layer, as the user has left it, and its CSV file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.notify import tell, tell_error
from napari_xlstm_unet.results import Result
from napari_xlstm_unet.state import MeasureState
from xlstm_unet.images import Image
from xlstm_unet.measure.objects import ObjectMeasurement, measure_objects, write_measurements


class MeasurePart:
    """Measures on a thread and keeps what was measured.

    Parameters
    ----------
    background
        Threads.
    """

    def __init__(self, background: Background) -> None:
        self.state = MeasureState()
        self._background = background
        self._measured: tuple[list[ObjectMeasurement], Image] | None = None

    def measure(self, result: Result) -> None:
        """Measure every object of a result layer; returns at once."""
        task = result.outcome.task
        labels = task.canonical(np.array(result.layer.data))
        self.state.pending = True

        def work() -> tuple[list[ObjectMeasurement], Image]:
            image = task.read_all()
            return measure_objects(labels, image), image

        name = result.layer.name
        self._background.run(
            work, lambda found: self._show(name, *found), self._fail, name="xlstm-unet-measure"
        )

    def write(self, path: Path | str) -> None:
        """Write the table as CSV; returns at once."""
        if self._measured is None:
            return
        measurements, image = self._measured
        self._background.run(
            lambda: write_measurements(path, measurements, image),
            lambda _: tell(f"Measurements of {len(measurements)} objects written to {path}."),
            tell_error,
            name="xlstm-unet-csv",
        )

    def _show(self, name: str, measurements: list[ObjectMeasurement], image: Image) -> None:
        self._measured = (measurements, image)
        self.state.layer = name
        self.state.columns = _columns(image)
        self.state.rows = tuple(_row(m, image) for m in measurements)
        self.state.pending = False

    def _fail(self, error: Exception) -> None:
        self.state.pending = False
        tell_error(error)


def _columns(image: Image) -> tuple[str, ...]:
    unit = "px" if image.spacing is None else image.unit
    volume = "Z" in image.axes
    size = f"volume ({unit}³)" if volume else f"area ({unit}²)"
    means = ["mean"] if image.channels == 1 else [f"mean {n + 1}" for n in range(image.channels)]
    return ("label", *(["frame"] if "T" in image.axes else []), size, f"diameter ({unit})", *means)


def _row(m: ObjectMeasurement, image: Image) -> tuple[float, ...]:
    frame: Sequence[float] = [m.frame] if "T" in image.axes else []
    return (m.label, *frame, m.area, m.equivalent_diameter, *m.mean_intensity)
