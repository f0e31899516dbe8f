"""What the user changed in result layers, counted and stored through the worker; on threads, free of Qt."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from napari_xlstm_unet.learn_state import Counts
from napari_xlstm_unet.learning import Arrays, Learning, image_name, image_params
from napari_xlstm_unet.results import Kept, Outcome, Result
from napari_xlstm_unet.task import Index, Piece, Task
from xlstm_unet.spec import ModelSpec


@dataclass(frozen=True)
class Draft:
    """A result layer as the user has left it.

    Parameters
    ----------
    outcome
        What the model gave.
    labels
        The layer's array; it may change while it is read, and is then looked at again.
    accepted
        Where the user marked it right; None: nowhere.
    """

    outcome: Outcome
    labels: NDArray[Any]
    accepted: NDArray[np.bool_] | None

    @classmethod
    def of(cls, result: Result) -> Draft:
        """Take hold of a layer's arrays."""
        return cls(result.outcome, np.asarray(result.layer.data), result.accepted)

    @property
    def usable(self) -> bool:
        """Whether the layer still has the shape that it was made with."""
        return self.labels.shape == self.outcome.snapshot.shape and self.labels.dtype.kind in "iu"

    def arrays(self, index: Index) -> Arrays:
        """Return one piece, as the worker takes it; labels that the model does not have are left out."""
        task, spec = self.outcome.task, self.outcome.spec
        arrays = {
            "prediction": task.by_piece(self.outcome.snapshot)[index],
            "labels": task.by_piece(self.labels)[index],
        }
        if spec.task == "classes":
            beyond = arrays["labels"] > len(spec.labels)
            arrays["labels"] = np.where(beyond, arrays["prediction"], arrays["labels"])
        if self.accepted is not None:
            arrays["accepted"] = task.by_piece(self.accepted)[index]
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


@dataclass(frozen=True)
class Survey:
    """What was found in a layer.

    Parameters
    ----------
    counts
        Corrected and accepted objects.
    states
        0 untouched, 1 corrected, 2 accepted; the layer's shape.
    beyond
        Labels that the model does not have.
    unstored
        Whether some of it is not in the store.
    """

    counts: Counts
    states: NDArray[np.uint8]
    beyond: tuple[int, ...] = ()
    unstored: bool = False


@dataclass
class _Seen:
    """One piece as it was when it was last looked at."""

    key: tuple[int, ...]
    counts: dict[str, int]
    states: NDArray[np.uint8] | None
    """None: all untouched."""
    stored: bool = False


@dataclass
class Surveyor:
    """Counts and stores corrections; what has not changed since is not sent again.

    Parameters
    ----------
    learning
        The worker.
    """

    learning: Learning
    _seen: WeakKeyDictionary[Outcome, dict[Index, _Seen]] = field(default_factory=WeakKeyDictionary)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def survey(self, draft: Draft) -> Survey:
        """Count what was changed and accepted; waits for the worker."""
        with self._lock:
            return self._survey(draft)

    def store(self, drafts: Sequence[Draft]) -> Survey:
        """Store the corrections of the last of ``drafts``, joined with the others of the same image; waits.

        Only the pieces that have changed since they were stored last are sent.
        """
        with self._lock:
            draft = drafts[-1]
            survey = self._survey(draft)
            for index, seen in self._pieces(draft).items():
                if not seen.stored:
                    self._store(drafts, index)
                    seen.stored = True
            return survey

    def stored_as_is(self, draft: Draft) -> None:
        """Take what was just loaded from the store for stored."""
        with self._lock:
            self._survey(draft)
            for seen in self._pieces(draft).values():
                seen.stored = True

    def hand_over(self, result: Result, model: str, spec: ModelSpec) -> None:
        """Let another model learn from what is corrected in ``result``."""
        with self._lock:
            result.outcome.model, result.outcome.spec = model, spec
            self._seen.pop(result.outcome, None)

    def kept(self, draft: Draft) -> Kept | None:
        """Return the user's work in a layer, to be pasted into the next result; waits."""
        survey = self.survey(draft)
        if not survey.states.any():
            return None
        return Kept(draft.labels.copy(), survey.states)

    def rebase(self, result: Result, names: Collection[str]) -> bool:
        """Take pieces of ``result`` as they stand for what the model gave; return whether there were any.

        Their corrections have been forgotten: only what is changed from now on counts.
        """
        outcome, task = result.outcome, result.outcome.task
        chosen = [index for index in task.pieces() if image_name(task, index) in names]
        labels = np.asarray(result.layer.data)
        if not chosen or labels.shape != outcome.snapshot.shape:
            return False
        snapshot = outcome.snapshot.astype(np.promote_types(outcome.snapshot.dtype, labels.dtype))
        for index in chosen:
            task.by_piece(snapshot)[index] = task.by_piece(labels)[index]
            if result.accepted is not None:
                task.by_piece(result.accepted)[index] = False
        with self._lock:
            outcome.snapshot, outcome.kept = snapshot, None
            self._seen.pop(outcome, None)
        return True

    def _pieces(self, draft: Draft) -> dict[Index, _Seen]:
        return self._seen.setdefault(draft.outcome, {})

    def _survey(self, draft: Draft) -> Survey:
        outcome = draft.outcome
        known = self._pieces(draft)
        counts, states = [], np.zeros(outcome.snapshot.shape, np.uint8)
        places = outcome.task.by_piece(states)
        for index in outcome.task.pieces():
            seen = self._look(draft, index, known.get(index))
            if seen is not None:
                known[index] = seen
                counts.append(seen.counts)
                if seen.states is not None:
                    places[index] = seen.states
        unstored = any(not seen.stored for seen in known.values())
        return Survey(Counts.of(*counts), states, _beyond(draft), unstored)

    def _look(self, draft: Draft, index: Index, before: _Seen | None) -> _Seen | None:
        """Look at one piece; None where it is, and always was, as the model gave it."""
        arrays = draft.arrays(index)
        accepted = arrays.get("accepted")
        if accepted is not None and not accepted.any():
            del arrays["accepted"]
        if "accepted" not in arrays and np.array_equal(arrays["labels"], arrays["prediction"]):
            if before is None or not before.key:
                return before
            return _Seen((), {}, None)
        key = tuple(zlib.crc32(arrays[name].data) for name in ("labels", "accepted") if name in arrays)
        if before is not None and before.key == key:
            return before
        return _Seen(key, *self.learning.preview(draft.outcome.model, arrays))

    def _store(self, drafts: Sequence[Draft], index: Index) -> None:
        outcome = drafts[-1].outcome
        task = outcome.task
        piece = task.read(index)
        same = [(draft, other) for draft in drafts if (other := _same_piece(draft.outcome.task, task, index))]
        diameter = outcome.diameter / task.factor if outcome.diameter else None
        self.learning.save(
            outcome.model,
            image_params(task, piece, index),
            diameter,
            {"image": piece.array, **_joined([(draft, *other) for draft, other in same], piece)},
        )


def _same_piece(other: Task, task: Task, index: Index) -> tuple[Index] | None:
    """Return where ``other`` holds the same plane or volume as ``task`` at ``index``; None if it does not."""
    if (other.factor, other.axes, other.channels, other.dimension) != (
        task.factor,
        task.axes,
        task.channels,
        task.dimension,
    ):
        return None
    found = next((place for place in other.pieces() if other.place(place) == task.place(index)), None)
    if found is None:
        return None
    lazy = not isinstance(task.array, np.ndarray)
    return None if lazy and other.window != task.window else (found,)


def region_of(task: Task, piece: Piece) -> Any:
    """Return the part of a piece's grid that the task's window takes, to index its labels with."""
    if piece.region is None:
        return ...
    return tuple(task.window[task.axes.index(axis)] for axis in piece.axes if axis != "C")


def _joined(parts: Sequence[tuple[Draft, Index]], piece: Piece) -> Arrays:
    """Lay the drafts of several regions of one image on its grid; later ones cover earlier ones."""
    shape = tuple(n for n, axis in zip(piece.array.shape, piece.axes, strict=True) if axis != "C")
    prediction, labels = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    accepted = np.zeros(shape, bool)
    for draft, index in parts:
        arrays = draft.arrays(index)
        region = region_of(draft.outcome.task, piece)
        instances = draft.outcome.spec.task == "instances"
        offset = int(max(prediction.max(), labels.max())) if instances else 0
        for target, name in ((prediction, "prediction"), (labels, "labels")):
            part = arrays[name].astype(np.int32)
            target[region] = np.where(part > 0, part + offset, 0)
        accepted[region] = arrays.get("accepted", False)
    return {"prediction": prediction, "labels": labels, "accepted": accepted}


def _beyond(draft: Draft) -> tuple[int, ...]:
    spec = draft.outcome.spec
    if spec.task == "instances" or int(draft.labels.max(initial=0)) <= len(spec.labels):
        return ()
    values = np.unique(draft.labels)
    return tuple(int(value) for value in values[values > len(spec.labels)])
