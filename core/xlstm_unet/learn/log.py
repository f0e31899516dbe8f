"""Log of a training: JSON lines, and a picture of the curves."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xlstm_unet.files import atomic_path

LOG, CURVE = "log.jsonl", "curve.png"


class Log:
    """Lines of ``log.jsonl``, appended as they come.

    Parameters
    ----------
    folder
        Folder of the run.
    keep_until
        Lines of later steps are dropped: they belong to work that is done again after a resume.
    """

    def __init__(self, folder: Path, *, keep_until: int = -1) -> None:
        self._path = folder / LOG
        self.lines = [line for line in _read(self._path) if line.get("step", 0) <= keep_until]
        with atomic_path(self._path) as temporary:
            temporary.write_text("".join(json.dumps(line) + "\n" for line in self.lines), encoding="utf-8")

    def add(self, **values: Any) -> None:
        """Append one line."""
        self.lines.append(values)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def draw(self) -> None:
        """Draw loss and validation score over steps as ``curve.png``, where matplotlib is installed."""
        if find_spec("matplotlib") is None:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4), layout="constrained")
        FigureCanvasAgg(figure)
        loss_axes = figure.add_subplot()
        losses = [(line["step"], line["loss"]) for line in self.lines if "loss" in line]
        scores = [(line["step"], line["validation"]["score"]) for line in self.lines if "validation" in line]
        if losses:
            loss_axes.plot(*zip(*losses, strict=True), color="tab:blue", linewidth=1)
        loss_axes.set(xlabel="step", ylabel="training loss")
        score_axes = loss_axes.twinx()
        if scores:
            score_axes.plot(*zip(*scores, strict=True), color="tab:orange", marker="o", markersize=3)
        score_axes.set(ylabel="validation score", ylim=(0, 1))
        with atomic_path(self._path.with_name(CURVE)) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _read(path: Path) -> list[dict[str, Any]]:
    """Lines written so far; a last line that a kill cut short is left out."""
    if not path.exists():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines
