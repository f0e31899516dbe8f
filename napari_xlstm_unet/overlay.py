"""A layer over the selected result that shows what is corrected and what is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_xlstm_unet.results import Result

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

CORRECTED = (0.98, 0.62, 0.11, 1.0)
ACCEPTED = (0.25, 0.75, 0.35, 1.0)
_NOTHING = (0.0, 0.0, 0.0, 0.0)
OPACITY = 0.6


class Overlay:
    """At most one such layer in a viewer.

    Parameters
    ----------
    viewer
        The viewer.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._layer: Labels | None = None
        self._of: Result | None = None

    def show(self, result: Result, states: NDArray[np.uint8]) -> None:
        """Show the states of ``result``."""
        if self._layer is not None and self._of is result:
            self._layer.data = states
            return
        self.hide()
        layer = Labels(
            states,
            name=f"{result.layer.name}: corrected, accepted",
            opacity=OPACITY,
            colormap=DirectLabelColormap(color_dict={None: _NOTHING, 0: _NOTHING, 1: CORRECTED, 2: ACCEPTED}),
            features={"index": [0, 1, 2], "state": ["untouched", "corrected", "accepted"]},
            **result.outcome.task.placement,
        )
        layer.editable = False
        self._layer, self._of = layer, result
        add_quietly(self._viewer, layer)

    def hide(self) -> None:
        """Remove the layer."""
        layer, self._layer, self._of = self._layer, None, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def removed(self, layer: Layer) -> None:
        """Know that the user removed a layer."""
        if layer is self._layer:
            self._layer = self._of = None


def add_quietly(viewer: ViewerModel, layer: Layer) -> None:
    """Add a layer and leave the selection as it is: the user goes on painting."""
    active = viewer.layers.selection.active
    viewer.add_layer(layer)
    viewer.layers.selection.active = active
