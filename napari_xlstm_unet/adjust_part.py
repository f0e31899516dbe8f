"""The sliders: decode the maps that the worker kept, again and at once, with other settings."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.background import Background
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.notify import tell_error
from napari_xlstm_unet.results import Outcome, Result, Results
from napari_xlstm_unet.run import Run
from napari_xlstm_unet.state import AdjustState, JobState
from xlstm_unet.errors import CancelledError
from xlstm_unet.spec import Decoding
from xlstm_unet.worker.errors import HandleError

if TYPE_CHECKING:
    from napari.components import ViewerModel


class AdjustPart:
    """Keeps the sliders and the result layer that they belong to together.

    Only the newest setting counts: while one decoding runs, later ones replace each other.

    Parameters
    ----------
    viewer
        The viewer, whose selected layer says which result the sliders belong to.
    backend, background
        The worker, and threads to wait for it on.
    results
        The result layers.
    correct
        The part "Correct", which follows the same result.
    job
        State of the running work: the sliders rest while it runs.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        backend: Backend,
        background: Background,
        *,
        results: Results,
        correct: CorrectPart,
        job: JobState,
    ) -> None:
        self.state = AdjustState()
        self._correct = correct
        self._viewer = viewer
        self._backend = backend
        self._background = background
        self._results = results
        self._job = job
        self._result: Result | None = None
        self._wanted: Decoding | None = None
        self._run: Run | None = None
        self._connections = [
            (viewer.layers.selection.events.active, self._follow_selection),
            (viewer.layers.events.removed, self._forget),
            (viewer.layers.events.renamed, self._renamed),
        ]
        for emitter, callback in self._connections:
            emitter.connect(callback)

    @property
    def result(self) -> Result | None:
        """The result that was shown or selected last."""
        return self._result

    def close(self) -> None:
        """Let go of the viewer and of running work."""
        for emitter, callback in self._connections:
            emitter.disconnect(callback)
        self._connections = []
        if self._run is not None:
            self._run.cancel()

    def attach(self, result: Result | None) -> None:
        """Let the sliders belong to ``result`` and show its settings."""
        self._result = result
        self._wanted = None
        self._correct.attach(result)
        state = self.state
        if result is None or not result.outcome.handles or result.outcome.spec.task != "instances":
            state.available = False
            state.layer = ""
            return
        decoding = result.outcome.decoding
        state.layer = result.layer.name
        state.threshold, state.seed_height = decoding.threshold, decoding.seed_height
        state.min_size, state.count = decoding.min_size, result.outcome.count
        state.available = True

    def adjust(
        self, *, threshold: float | None = None, seed_height: float | None = None, min_size: int | None = None
    ) -> None:
        """Set what is given and decode again; returns at once."""
        if self._result is None or not self.state.available or self._job.busy:
            return
        state = self.state
        state.threshold = state.threshold if threshold is None else threshold
        state.seed_height = state.seed_height if seed_height is None else seed_height
        state.min_size = state.min_size if min_size is None else min_size
        self._wanted = Decoding(
            threshold=state.threshold, seed_height=state.seed_height, min_size=state.min_size
        )
        self._next()

    def reset(self) -> None:
        """Go back to the model's own settings."""
        if self._result is not None:
            own = self._result.outcome.own_decoding
            self.adjust(threshold=own.threshold, seed_height=own.seed_height, min_size=own.min_size)

    def _next(self) -> None:
        """Start the newest setting unless one is being decoded."""
        if self._run is not None or self._wanted is None or self._result is None:
            return
        wanted, result, run = self._wanted, self._result, Run(self._backend)
        self._wanted, self._run = None, run
        self.state.pending = True
        first = self._shown_piece(result)
        kept = partial(self._correct.kept_of, result) if result.edited() else _nothing
        self._background.run(
            lambda: run.decode(result.outcome, wanted, first, kept=kept),
            lambda outcome: self._decoded(result, outcome),
            lambda error: self._failed(result, error),
            name="xlstm-unet-decode",
        )

    def _decoded(self, result: Result, outcome: Outcome) -> None:
        self._run = None
        if self._results.of_layer(result.layer) is not None:
            if result.edited():
                fresh = self._results.add(outcome)
                if self._result is result:
                    self._result, self.state.layer = fresh, fresh.layer.name
                    self._correct.attach(fresh)
            else:
                result.write(outcome)
                self._correct.touched()
            if self._result is not None and self._result.outcome is outcome:
                self.state.count = outcome.count
        self.state.pending = self._wanted is not None
        self._next()

    def _failed(self, result: Result, error: Exception) -> None:
        self._run = None
        self._wanted = None
        self.state.pending = False
        if isinstance(error, CancelledError):
            return
        if isinstance(error, HandleError):
            result.outcome.handles.clear()
            error = HandleError(
                "The maps behind this result are no longer kept.", "Press Segment to make them again."
            )
        if self._result is result:
            self.attach(result)
        tell_error(error)

    def _shown_piece(self, result: Result) -> tuple[int, ...] | None:
        task = result.outcome.task
        here = result.layer.world_to_data(self._viewer.dims.point)
        steps = tuple(round(here[task.label_axes.index(axis)]) for axis in task.piece_axes)
        return steps if steps in result.outcome.handles else None

    def _follow_selection(self, event: object = None) -> None:
        active = self._viewer.layers.selection.active
        result = self._results.of_layer(active) if active is not None else None
        if result is not None and result is not self._result:
            self.attach(result)

    def _forget(self, event: Any) -> None:
        gone = self._results.forget(event.value)
        if gone is None:
            return
        if gone is self._result:
            self.attach(None)
        unused = set(gone.outcome.handles.values()) - self._results.handles_in_use()
        self._backend.release(unused)

    def _renamed(self, event: object) -> None:
        if self._result is not None and self.state.available:
            self.state.layer = self._result.layer.name


def _nothing() -> None:
    """Nothing was changed since the result was shown."""
