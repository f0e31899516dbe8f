"""Result layers: where they go, and that an edited one is never overwritten."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_xlstm_unet.geometry import KEY, Window
from napari_xlstm_unet.task import Index, Task
from xlstm_unet.spec import Decoding, ModelSpec

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

OPACITY = 0.5
"""Of new result layers: the image stays visible underneath."""

BEYOND = (1.0, 0.2, 0.9, 1.0)
"""Colour of labels that the model does not have."""

WARM_UP_DELAY = 1.0


@dataclass(frozen=True)
class Kept:
    """A user's work, to be pasted into fresh labels of the same grid.

    Parameters
    ----------
    labels
        As the user left them.
    states
        0 untouched, 1 corrected, 2 accepted.
    """

    labels: NDArray[np.integer]
    states: NDArray[np.uint8]

    def accepted(self, pasted: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return where the user's work stands in ``pasted``: it counts as accepted there."""
        return np.asarray((self.states > 0) & ((self.labels == 0) == (pasted == 0)))


@dataclass(eq=False)
class Outcome:
    """What a run produced.

    Parameters
    ----------
    task
        What was segmented.
    spec
        The model.
    model
        Its name for the worker.
    labels
        Labels of ``task.label_shape``, the user's work pasted in.
    snapshot
        What the model gave; corrections are what differs from it.
    shown
        A copy of ``labels`` that stays as it was put into the layer.
    kept
        The user's work that was pasted in.
    handles
        Kept maps in the worker, by piece; empty when none are kept.
    crops
        Part of each piece's labels that belongs to the result; None for all.
    decoding
        Settings that the labels were decoded with.
    own_decoding
        The model's own settings, for this image.
    diameter
        Object diameter used, in pixels of the first level; None when the model does not scale by it.
    count
        Number of objects.
    notes
        Remarks of the worker for the user.
    seconds
        How long it took.
    """

    task: Task
    spec: ModelSpec
    model: str
    labels: NDArray[np.integer]
    snapshot: NDArray[np.integer]
    shown: NDArray[np.integer]
    kept: Kept | None = None
    handles: dict[Index, str] = field(default_factory=dict)
    crops: dict[Index, Window | None] = field(default_factory=dict)
    decoding: Decoding = field(default_factory=Decoding)
    own_decoding: Decoding = field(default_factory=Decoding)
    diameter: float | None = None
    count: int = 0
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def source(self) -> tuple[str, ...]:
        """What makes two outcomes versions of the same result: image, model, region, reading and place."""
        return (self.model, *self.grid)

    @property
    def grid(self) -> tuple[str, ...]:
        """What makes two outcomes results of the same pixels: image, region, reading and place."""
        task = self.task
        place = {name: np.asarray(value).tolist() for name, value in task.placement.items()}
        return (task.image_id, str(task.window), str(task.factor), task.axes, str(place))

    @property
    def meaning(self) -> tuple[str, ...]:
        """What makes labels of two outcomes mean the same."""
        return (self.spec.task, *(label.name for label in self.spec.labels))


@dataclass
class Result:
    """A result layer in the viewer.

    Parameters
    ----------
    layer
        The layer.
    outcome
        What it shows.
    accepted
        Where the user marked it right; None: nowhere.
    """

    layer: Labels
    outcome: Outcome
    accepted: NDArray[np.bool_] | None = None

    def edited(self) -> bool:
        """Whether the user changed or accepted anything since it was shown (an undone edit is none)."""
        data = np.asarray(self.layer.data)
        same = data.shape == self.outcome.shown.shape and np.array_equal(data, self.outcome.shown)
        return not same or not self._as_accepted_before()

    def _as_accepted_before(self) -> bool:
        if self.accepted is None:
            return True
        kept = self.outcome.kept
        return kept is not None and np.array_equal(self.accepted, kept.accepted(self.outcome.shown))

    def write(self, outcome: Outcome) -> None:
        """Show other labels in the same layer."""
        self.layer.data = outcome.labels
        self.outcome = outcome
        self.accepted = carried(outcome)
        self.layer.metadata[KEY] = facts(outcome)


def carried(outcome: Outcome) -> NDArray[np.bool_] | None:
    """Return what of a fresh result the user has looked at before."""
    return outcome.kept.accepted(outcome.shown) if outcome.kept is not None else None


def facts(outcome: Outcome) -> dict[str, Any]:
    """Return what a result layer's metadata says about where it comes from."""
    task = outcome.task
    return {
        "model": outcome.model,
        "image": task.image_name,
        "image_id": task.image_id,
        "axes": task.axes,
        "region": [[part.start, part.stop] for part in task.window],
        "diameter": outcome.diameter,
        "decoding": outcome.decoding.model_dump() if outcome.spec.task == "instances" else None,
        "id": uuid.uuid4().hex,
        **task.source,
    }


def warm_up() -> None:
    """Let napari prepare what its first Labels layer needs (.25 s), once the dock has opened."""
    time.sleep(WARM_UP_DELAY)
    Labels(np.zeros((2, 2), np.uint16))


class Results:
    """The result layers of one viewer.

    Parameters
    ----------
    viewer
        Where they are added.
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self._viewer = viewer
        self._results: list[Result] = []

    def of_layer(self, layer: Layer) -> Result | None:
        """Return the result shown by ``layer``, if it is one."""
        return next((result for result in self._results if result.layer.unique_id == layer.unique_id), None)

    def show(self, outcome: Outcome) -> Result:
        """Show an outcome: in the layer of the same source, or in a new one where the user edited that."""
        for result in self._results:
            if result.outcome.source == outcome.source and not result.edited():
                result.write(outcome)
                return result
        return self.add(outcome)

    def add(self, outcome: Outcome) -> Result:
        """Show an outcome in a new layer."""
        task = outcome.task
        layer = Labels(
            outcome.labels,
            name=f"{task.image_name} - {outcome.model}",
            opacity=OPACITY,
            metadata={KEY: facts(outcome)},
            **task.placement,
            **appearance(outcome.spec),
        )
        result = Result(layer, outcome, carried(outcome))
        self._results.append(result)
        self._viewer.add_layer(layer)
        return result

    def all(self) -> list[Result]:
        """Return all results, the newest last."""
        return list(self._results)

    def of_image(self, image_id: str) -> list[Result]:
        """Return the results of one image."""
        return [result for result in self._results if result.outcome.task.image_id == image_id]

    def same_image(self, outcome: Outcome) -> list[Result]:
        """Return the results of one image by one model, whatever their region; the newest last."""
        return [
            result for result in self.of_image(outcome.task.image_id) if result.outcome.model == outcome.model
        ]

    def newest(self, outcome: Outcome) -> Result | None:
        """Return the newest result of the same pixels whose labels mean the same."""
        found = [
            result
            for result in self._results
            if (result.outcome.grid, result.outcome.meaning) == (outcome.grid, outcome.meaning)
        ]
        return found[-1] if found else None

    def forget(self, layer: Layer) -> Result | None:
        """Forget a layer that left the viewer and return what it showed."""
        result = self.of_layer(layer)
        if result is not None:
            self._results.remove(result)
        return result

    def handles_in_use(self) -> set[str]:
        """Return the handles of all kept maps that some layer may still ask for."""
        return {handle for result in self._results for handle in result.outcome.handles.values()}


def appearance(spec: ModelSpec) -> dict[str, Any]:
    """Return the keyword arguments that give labels the colours and names of a model of classes."""
    if spec.task == "instances":
        return {}
    colors: dict[int | None, Any] = {None: BEYOND, 0: (0, 0, 0, 0)}
    for label in spec.labels:
        colors[label.value] = (*(part / 255 for part in label.color), 1.0)
    names = ["background", *(label.name for label in spec.labels)]
    return {
        "colormap": DirectLabelColormap(color_dict=colors),
        "features": {"index": list(range(len(names))), "label": names},
    }
