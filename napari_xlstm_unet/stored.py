"""Corrections that an earlier session stored, found again by the pixels of the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xlstm_unet.corrections import region_of
from napari_xlstm_unet.learn_state import Counts, SavedCorrections
from napari_xlstm_unet.learning import Arrays, Learning, image_params
from napari_xlstm_unet.results import Kept, Outcome
from napari_xlstm_unet.task import Index, Piece, Task
from xlstm_unet.errors import XLSTMUNetError
from xlstm_unet.spec import ModelSpec

TRIES = 5
"""Entries of the same shape that are compared with an image of one piece."""


@dataclass(frozen=True)
class Found:
    """Stored corrections of the pixels of a task.

    Parameters
    ----------
    task, spec, model
        What they were found for.
    prediction, labels, accepted, states
        Of the shape of the task's labels.
    counts
        What they hold.
    saved
        When the newest was stored.
    """

    task: Task
    spec: ModelSpec
    model: str
    prediction: NDArray[np.int32]
    labels: NDArray[np.int32]
    accepted: NDArray[np.bool_]
    states: NDArray[np.uint8]
    counts: Counts
    saved: str

    @property
    def kept(self) -> Kept:
        """The user's work, to be pasted into another result."""
        return Kept(self.labels, self.states)

    def outcome(self) -> Outcome:
        """Return what a result layer shows them as."""
        return Outcome(self.task, self.spec, self.model, self.labels, self.prediction, self.labels.copy())


class Store:
    """Looks into the user's store of corrections; every call waits.

    Parameters
    ----------
    learning
        The worker.
    """

    def __init__(self, learning: Learning) -> None:
        self._learning = learning

    def find(self, task: Task, spec: ModelSpec, model: str) -> Found | None:
        """Return what is stored for the pixels of ``task`` and a model or its relatives, or None."""
        entries = [entry for entry in self._learning.list_corrections() if not entry.problem]
        if not entries:
            return None
        relatives = self._relatives(model)
        entries = [entry for entry in entries if entry.model in relatives]
        found: list[SavedCorrections] = []
        shape = task.label_shape
        prediction, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
        accepted, states = np.zeros(shape, bool), np.zeros(shape, np.uint8)
        for index in task.pieces() if entries else ():
            loaded = self._piece(task, index, entries)
            if loaded is None:
                continue
            entry, arrays, region = loaded
            if set(np.unique(arrays["labels"])) - set(range(len(spec.labels) + 1)) and spec.task == "classes":
                continue
            found.append(entry)
            _, part_states = self._learning.preview(entry.model, arrays)
            for whole, part in (
                (prediction, arrays["prediction"]),
                (labels, arrays["labels"]),
                (accepted, arrays.get("accepted", np.zeros(part_states.shape, bool))),
                (states, part_states),
            ):
                task.by_piece(whole)[index] = part[region]
        if not states.any():
            return None
        counts = Counts.sum(entry.counts for entry in found)
        return Found(
            task, spec, model, prediction, labels, accepted, states, counts, max(e.saved for e in found)
        )

    def _relatives(self, model: str) -> set[str]:
        """Return the model, its root, and what else was fine-tuned from either."""
        tuned = self._learning.models()
        roots = {entry["root"] for entry in tuned if entry["name"] == model} | {model}
        return roots | {entry["name"] for entry in tuned if entry["root"] in roots}

    def _piece(
        self, task: Task, index: Index, entries: list[SavedCorrections]
    ) -> tuple[SavedCorrections, Arrays, Any] | None:
        place = task.place(index)
        likely = [entry for entry in entries if entry.image.endswith(place)]
        if not likely:
            return None
        piece = task.read(index)
        shape = _grid(piece)
        params = image_params(task, piece, index)
        for entry in [entry for entry in likely if entry.shape[-len(shape) :] == shape][:TRIES]:
            try:
                arrays = self._learning.load_corrections(entry.id, params, piece.array)
            except XLSTMUNetError as error:
                if error.code in ("image-changed", "corrections"):
                    continue
                raise
            return entry, arrays, region_of(task, piece)
        return None


def _grid(piece: Piece) -> tuple[int, ...]:
    return tuple(n for n, axis in zip(piece.array.shape, piece.axes, strict=True) if axis != "C")
