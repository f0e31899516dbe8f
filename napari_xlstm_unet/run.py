"""A run: segment every piece of a task, or decode its maps again; on a thread, free of napari and Qt."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.results import Kept, Outcome
from napari_xlstm_unet.task import Index, Task
from xlstm_unet.errors import CancelledError
from xlstm_unet.progress import Progress
from xlstm_unet.segment.keep import keep_classes, keep_objects
from xlstm_unet.segment.stitch import stitch_slices
from xlstm_unet.spec import Decoding, ModelSpec
from xlstm_unet.worker import Job

LARGEST_SHORT = 60_000
"""Largest number that is stored as uint16."""

_STAGES = {"network": (0.0, 0.85), "decoding": (0.85, 1.0)}
"""Share of a piece's time that each stage of the worker takes, roughly."""


@dataclass
class Run:
    """One piece of running work that can be cancelled from any thread.

    Parameters
    ----------
    backend
        The worker.
    report
        Called with the fraction done and a line of text, on any thread.
    """

    backend: Backend
    report: Callable[[float, str], None] = lambda fraction, text: None
    _cancelled: threading.Event = field(default_factory=threading.Event)
    _job: Job | None = None

    def cancel(self) -> None:
        """Ask for the end; the work raises `CancelledError` within about a second."""
        self._cancelled.set()
        if self._job is not None:
            self._job.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether the end was asked for."""
        return self._cancelled.is_set()

    def segment(
        self,
        task: Task,
        spec: ModelSpec,
        device: str,
        *,
        model: str,
        keep_maps: bool = True,
        kept: Callable[[Outcome], Kept | None] = lambda outcome: None,
    ) -> Outcome:
        """Segment every piece; waits.

        Parameters
        ----------
        task
            What to segment.
        spec
            The model.
        device
            What to run it on, as the worker calls it.
        model
            Its name or folder.
        keep_maps
            Whether the worker keeps the maps, for `decode`.
        kept
            Returns the user's work to paste in; may wait.

        Raises
        ------
        CancelledError
            If `cancel` was called.
        XLSTMUNetError
            If a piece cannot be read or segmented.
        """
        started = time.perf_counter()
        labels = task.empty_labels()
        places = task.by_piece(labels)
        pieces = list(task.pieces())
        middle = pieces.pop(len(pieces) // 2)  # where stacks are sharpest, for the estimate of the diameter
        pieces.insert(0, middle)
        outcome = Outcome(task, spec, model, labels, labels, labels)
        diameter = task.diameter / task.factor if task.diameter else None
        for number, index in enumerate(pieces):
            self._check()
            self._tell(number, len(pieces), Progress("reading", 0, 1))
            piece = task.read(index)
            job = self.backend.segment(
                task,
                piece,
                model=model,
                device=device,
                diameter=diameter,
                keep_maps=keep_maps,
                on_progress=partial(self._tell, number, len(pieces)),
            )
            reply = self._wait(job)
            places[index] = reply.arrays["labels"][piece.region or ...]
            if handle := reply.values.get("handle"):
                outcome.handles[index] = handle
                outcome.crops[index] = piece.region
            diameter = diameter or reply.values.get("diameter")
            outcome.notes += tuple(
                note for note in reply.values.get("notes", ()) if note not in outcome.notes
            )
        outcome.diameter = diameter * task.factor if diameter else None
        outcome.kept = kept(outcome)
        outcome.decoding = outcome.own_decoding = Decoding.model_validate(reply.values["decoding"])
        self._complete(outcome, places)
        outcome.seconds = time.perf_counter() - started
        return outcome

    def decode(
        self,
        outcome: Outcome,
        decoding: Decoding,
        first: Index | None = None,
        *,
        kept: Callable[[], Kept | None] = lambda: None,
    ) -> Outcome:
        """Decode every kept map with other settings; waits.

        Parameters
        ----------
        outcome
            What to decode again; it stays as it is.
        decoding
            The settings.
        first
            Piece to begin with.
        kept
            Returns the user's work since then, if any; may wait.
        """
        labels = outcome.task.empty_labels()
        places = outcome.task.by_piece(labels)
        for index, handle in sorted(outcome.handles.items(), key=lambda item: item[0] != first):
            self._check()
            found = self._wait(self.backend.decode(handle, decoding)).arrays["labels"]
            places[index] = found[outcome.crops.get(index) or ...]
        fresh = replace(outcome, labels=labels, decoding=decoding, count=0, kept=kept() or outcome.kept)
        self._complete(fresh, places)
        return fresh

    def _complete(self, outcome: Outcome, places: NDArray[np.int32]) -> None:
        """Join slices where asked, number objects over all pieces, paste the user's work, count and copy.

        Labels become uint16 where numbers allow and leave room for the user's own: napari shows a large layer
        of them ten times faster than one of int32, and its window is not blocked meanwhile.
        """
        task = outcome.task
        if outcome.spec.task == "instances":
            depth = task.dimension
            if task.stitch:
                depth = 3
                for volume in places if "T" in task.axes else [places]:
                    volume[...] = stitch_slices(volume, cancel=self._cancelled.is_set)
            for index in np.ndindex(places.shape[:-depth]):
                self._check()
                part = places[index]
                found = int(part.max(initial=0))
                np.add(part, outcome.count, out=part, where=part > 0)
                outcome.count += found
        outcome.snapshot = _short(outcome.labels)
        if outcome.kept is not None:
            self._paste(outcome, places, outcome.kept)
        outcome.labels = _short(outcome.labels)
        outcome.shown = outcome.snapshot if outcome.kept is None else outcome.labels.copy()

    def _paste(self, outcome: Outcome, places: NDArray[np.int32], kept: Kept) -> None:
        task = outcome.task
        labels, states = task.by_piece(kept.labels), task.by_piece(kept.states)
        first = int(kept.labels.max(initial=0)) + 1
        for index in task.pieces():
            self._check()
            if outcome.spec.task == "classes":
                places[index] = keep_classes(places[index], labels[index], states[index])
            else:
                places[index] = keep_objects(places[index], labels[index], states[index], first)
        if outcome.spec.task == "instances":
            outcome.count = int(np.count_nonzero(np.bincount(outcome.labels.ravel())[1:]))

    def _wait(self, job: Job) -> Any:
        self._job = job
        if self.cancelled:  # between the check before and now
            job.cancel()
        try:
            return job.result()
        finally:
            self._job = None

    def _check(self) -> None:
        if self.cancelled:
            raise CancelledError

    def _tell(self, number: int, total: int, step: Progress) -> None:
        low, high = _STAGES.get(step.stage, (0.0, 0.0))
        within = low + (high - low) * step.done / max(step.total, 1)
        text = step.stage.capitalize() + (f", {number + 1} of {total}" if total > 1 else "") + "…"
        self.report((number + within) / total, text)


def _short(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Return a copy, of the smaller type where that holds the numbers."""
    return labels.astype(np.uint16 if labels.max(initial=0) <= LARGEST_SHORT else np.int32)
