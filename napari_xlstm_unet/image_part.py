"""Which image is chosen, how its axes are read, and what of it is segmented."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image, Shapes

from napari_xlstm_unet.axes import axes_choices, describe_axes, read_axes
from napari_xlstm_unet.channels import ChannelChoice, channel_choices
from napari_xlstm_unet.geometry import (
    KEY,
    anatomical_affine,
    best_level,
    level_factors,
    pixel_size,
    placement,
)
from napari_xlstm_unet.regions import Region, region_window
from napari_xlstm_unet.state import ModelState, SegmentState
from napari_xlstm_unet.task import Task
from xlstm_unet.errors import ImageError, ModelError
from xlstm_unet.spec import ModelSpec

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer


class ImagePart:
    """Follows the viewer's layers and makes a `Task` of what is chosen.

    Parameters
    ----------
    viewer
        The viewer.
    model
        The chosen model.
    """

    def __init__(self, viewer: ViewerModel, model: ModelState) -> None:
        self.state = SegmentState()
        self._viewer = viewer
        self._model = model
        self._chosen = ""  # unique id of the chosen layer, which keeps it through renaming
        self._corrected: dict[str, str] = {}
        layers = viewer.layers.events
        self._connections = [
            (layers.inserted, self._refresh_layers),
            (layers.removed, self._refresh_layers),
            (layers.reordered, self._refresh_layers),
            (layers.renamed, self._refresh_layers),
            (viewer.layers.selection.events.active, self._follow_selection),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)
        model.events.spec.connect(self._refresh_model)
        self._refresh_layers()
        self._follow_selection()

    def close(self) -> None:
        """Let go of the viewer."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections = []

    def choose(self, name: str) -> None:
        """Choose the image layer called ``name``."""
        state = self.state
        state.layer = name if name in state.layers else ""
        layer = self._layer()
        self._chosen = layer.unique_id.hex if layer is not None else ""
        if layer is None:
            state.axes_choices, state.axes, state.reading, state.levels = (), "", "", ()
        else:
            shape = _shape(layer)
            state.levels = (
                tuple(_level_title(layer, n) for n in range(len(layer.data))) if layer.multiscale else ()
            )
            state.level = -1
            try:
                axes = read_axes(shape, rgb=layer.rgb, labels=layer.axis_labels)
            except ValueError:
                state.axes_choices, state.axes = (), ""
                state.reading = f"{len(shape)} axes; 2 to 5 can be read"
            else:
                state.axes_choices = tuple(dict.fromkeys((axes, *axes_choices(len(shape), rgb=layer.rgb))))
                state.axes = self._corrected.get(layer.unique_id.hex, axes)
        self._refresh_model()

    def correct_axes(self, axes: str) -> None:
        """Read the chosen image's axes as ``axes``; remembered for this layer."""
        layer = self._layer()
        if layer is not None and axes in self.state.axes_choices:
            self._corrected[layer.unique_id.hex] = axes
            self.state.axes = axes
            self._refresh_model()

    def task(self, region: Region | None = None) -> Task:
        """Return what the Segment button has to work on.

        Parameters
        ----------
        region
            Another region than the chosen one.

        Raises
        ------
        ImageError, ModelError
            If something is missing or does not fit; the message says what to do.
        """
        state = self.state
        region = region or state.region
        layer, spec = self._layer(), self._model.spec
        if layer is None:
            raise ImageError(
                "There is no image to segment.", "Open one (File > Open), or a sample (File > Open Sample)."
            )
        if not self._model.name:
            raise ModelError(
                "There is no model.", "Put a model bundle into the models folder and reopen the dock."
            )
        if spec is None:
            raise ModelError(f"The model '{self._model.name}' is still being read.", "Try again in a moment.")
        if len(state.axes) != len(_shape(layer)):  # other data was put into the layer
            self.choose(layer.name)
        self._check_fit(layer, spec)
        level = state.level if state.level >= 0 else self._fitting_level(layer, spec)
        factors = level_factors(layer, level)
        box = self._viewer.layers[state.box] if region is Region.BOX and state.box in state.boxes else None
        window = region_window(
            region, layer, state.axes, self._viewer.dims, dimension=spec.dimension, box=box
        )
        array = layer.data[level] if layer.multiscale else layer.data
        window = tuple(
            slice(int(part.start / f), min(max(int(part.start / f) + 1, round(part.stop / f)), length))
            for part, f, length in zip(window, factors, array.shape, strict=True)
        )
        return Task(
            image_name=layer.name,
            image_id=layer.unique_id.hex,
            array=array,
            axes=state.axes,
            window=window,
            dimension=spec.dimension,
            channels=state.channel_choices[state.channel],
            pixels=pixel_size(layer, state.axes, factors),
            factor=factors[state.axes.index("X")],
            placement=placement(layer, state.axes, window, factors),
            diameter=None if state.auto_diameter or not state.has_diameter else state.diameter,
            affine=anatomical_affine(layer, state.axes, factors),
            source=layer.metadata.get(KEY, {}),
            stitch=state.stitch and state.can_stitch and region is not Region.SLICE,
        )

    def _check_fit(self, layer: Image, spec: ModelSpec) -> None:
        state = self.state
        name = f"The image '{layer.name}'"
        if 0 in _shape(layer):
            raise ImageError(f"{name} is empty (shape {_shape(layer)}).", "Choose another image.")
        if not state.axes:
            raise ImageError(f"{name} has {state.reading}.", "Split it, or pick a part of it first.")
        if spec.dimension == 3 and "Z" not in state.axes:
            raise ImageError(
                f"{name} is read as {state.axes}, without Z, but the model '{spec.name}' works on volumes.",
                "Choose a reading with Z beside 'Axes', or a 2D model.",
            )
        if not state.channel_choices:
            count = _shape(layer)[state.axes.index("C")] if "C" in state.axes else 1
            raise ImageError(
                f"{name} has {count} channel{'s' * (count != 1)}, "
                f"but the model '{spec.name}' expects {spec.input_channels}.",
                "Correct the reading beside 'Axes', or choose another model.",
            )

    def _fitting_level(self, layer: Image, spec: ModelSpec) -> int:
        state = self.state
        pixels = pixel_size(layer, state.axes, level_factors(layer, 0))
        wanted = 1.0
        if spec.spacing is not None and pixels.spacing is not None:
            unit = {("mm", "µm"): 1000.0, ("µm", "mm"): 0.001}.get((str(spec.spacing_unit), pixels.unit), 1.0)
            wanted = spec.spacing[-1] * unit / pixels.spacing[-1]
        elif state.has_diameter and not state.auto_diameter and spec.object_diameter:
            wanted = state.diameter / spec.object_diameter
        return best_level(layer, state.axes, wanted)

    def _layer(self) -> Image | None:
        name = self.state.layer
        return self._viewer.layers[name] if name and name in self._viewer.layers else None

    def _refresh_layers(self, event: object = None) -> None:
        state = self.state
        state.layers = tuple(layer.name for layer in self._viewer.layers if isinstance(layer, Image))
        state.boxes = tuple(layer.name for layer in self._viewer.layers if isinstance(layer, Shapes))
        if state.box not in state.boxes:
            state.box = state.boxes[-1] if state.boxes else ""
        kept = [layer.name for layer in self._viewer.layers if layer.unique_id.hex == self._chosen]
        if kept:
            state.layer = kept[0]
        elif self._chosen or state.layers:
            self.choose(state.layers[-1] if state.layers else "")

    def _follow_selection(self, event: object = None) -> None:
        active: Layer | None = self._viewer.layers.selection.active
        if isinstance(active, Image) and active.name != self.state.layer:
            self._refresh_layers()
            self.choose(active.name)

    def _refresh_model(self, spec: ModelSpec | None = None) -> None:
        """Bring everything that depends on image and model up to date."""
        state, spec, layer = self.state, self._model.spec, self._layer()
        shape = _shape(layer) if layer is not None else ()
        if state.axes:
            state.reading = describe_axes(state.axes, shape)
        stacked = set("TZ") & set(state.axes)
        state.regions = tuple(region for region in Region if region is not Region.SLICE or stacked)
        if state.region not in state.regions:
            state.region = Region.ALL
        count = shape[state.axes.index("C")] if "C" in state.axes else None
        choices: tuple[ChannelChoice, ...] = ()
        if spec is not None and state.axes:
            choices = channel_choices(count, spec, colour=state.axes.endswith("C"))
        if choices != state.channel_choices:
            state.channel = 0
            state.channel_choices = choices
        flat = spec is not None and spec.dimension == 2 and spec.task == "instances"
        state.can_stitch = flat and "Z" in state.axes
        state.has_diameter = spec is not None and spec.object_diameter is not None


def _shape(layer: Image) -> tuple[int, ...]:
    return tuple(layer.data[0].shape if layer.multiscale else layer.data.shape)


def _level_title(layer: Image, level: int) -> str:
    shape = layer.data[level].shape[:-1] if layer.rgb else layer.data[level].shape
    return f"{shape[-2]} × {shape[-1]} pixels"
