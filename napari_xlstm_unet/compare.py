"""The prediction of the current image before and after fine-tuning, in a layer of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from numpy.typing import NDArray

from napari_xlstm_unet.learn_state import Shown
from napari_xlstm_unet.overlay import add_quietly
from napari_xlstm_unet.results import OPACITY, Outcome, Result, appearance
from napari_xlstm_unet.task import Index, Task

if TYPE_CHECKING:
    from napari.components import ViewerModel


def shown_piece(task: Task, layer: Labels, viewer: ViewerModel) -> tuple[Task, Index]:
    """Return the part of ``task`` that is on the screen, one plane or volume, and its place."""
    here = layer.world_to_data(viewer.dims.point)
    window, index = list(task.window), []
    for axis in task.piece_axes:
        length = task.label_shape[task.label_axes.index(axis)]
        step = int(np.clip(round(here[task.label_axes.index(axis)]), 0, length - 1))
        place = task.axes.index(axis)
        window[place] = slice(task.window[place].start + step, task.window[place].start + step + 1)
        index.append(step)
    return replace(task, window=tuple(window), stitch=False), tuple(index)


class Comparison:
    """At most one such layer in a viewer; the user's own is hidden while it is shown.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._result: Result | None = None
        self._labels: dict[Shown, NDArray[Any]] = {}

    def begin(self, result: Result, after: Outcome, index: Index) -> None:
        """Take ``after``, the new prediction of one piece of ``result``."""
        self.end()
        outcome = result.outcome
        fresh = outcome.snapshot.astype(np.int32)
        outcome.task.by_piece(fresh)[index] = after.task.by_piece(after.labels)[(0,) * len(index)]
        self._result = result
        self._labels = {Shown.BEFORE: outcome.snapshot, Shown.AFTER: fresh}

    def show(self, shown: Shown) -> None:
        """Show the prediction before or after, or the user's own layer again."""
        result = self._result
        if result is None:
            return
        mine = shown is Shown.MINE
        result.layer.visible = mine
        if self._layer is None and not mine:
            self._layer = Labels(
                self._labels[shown],
                opacity=OPACITY,
                **result.outcome.task.placement,
                **appearance(result.outcome.spec),
            )
            self._layer.editable = False
            add_quietly(self._viewer, self._layer)
        if self._layer is not None:
            self._layer.visible = not mine
            if not mine:
                self._layer.data = self._labels[shown]
                self._layer.name = f"{result.outcome.task.image_name}: {shown.lower()} fine-tuning"

    def end(self) -> None:
        """Remove the layer and show the user's own."""
        layer, result = self._layer, self._result
        self._layer, self._result, self._labels = None, None, {}
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)
        if result is not None:
            result.layer.visible = True
