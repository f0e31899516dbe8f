"""The part "Segment": runs a task, shows its result, and can be cancelled at any time."""

from __future__ import annotations

import threading
import time

from napari_xlstm_unet.adjust_part import AdjustPart
from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.background import Background
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.image_part import ImagePart
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell_error
from napari_xlstm_unet.results import Outcome, Results
from napari_xlstm_unet.run import Run
from napari_xlstm_unet.state import Finish, JobState, Phase
from napari_xlstm_unet.task import Task
from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.spec import ModelSpec

GIVE_UP_SECONDS = 2.0
"""How long a cancelled run may take to end."""

REPORT_SECONDS = 0.05
"""Progress is shown at most this often."""


class SegmentPart:
    """Runs the chosen model on the chosen image.

    Parameters
    ----------
    backend, background
        The worker, and threads to wait for it on.
    job
        State of the running work.
    model, image, adjust, correct
        The other parts.
    results
        Where results are shown.
    limit_gb
        Largest array that is read without being asked again.
    """

    def __init__(
        self,
        backend: Backend,
        background: Background,
        job: JobState,
        *,
        model: ModelPart,
        image: ImagePart,
        adjust: AdjustPart,
        correct: CorrectPart,
        results: Results,
        limit_gb: float,
    ) -> None:
        self.job = job
        self.limit_gb = limit_gb
        self._backend = backend
        self._background = background
        self._model = model
        self._image = image
        self._adjust = adjust
        self._correct = correct
        self._results = results
        self._run: Run | None = None
        self._reported = 0.0

    def press(self) -> None:
        """Do what the button says: segment, or cancel, or start the worker again."""
        if self.job.phase is Phase.RUNNING:
            self.cancel()
        elif self.job.phase is Phase.BROKEN:
            self._model.start()
        elif self.job.phase is Phase.READY:
            self.segment()

    def segment(self) -> None:
        """Start to segment what is chosen; returns at once. Wrong input is told to the user."""
        try:
            task = self._image.task()
            task.check_size(self.limit_gb)
        except XLSTMUNetError as error:
            tell_error(error)
            return
        spec = self._model.state.spec
        assert spec is not None  # task() has looked
        self.segment_task(task, spec, self._model.state.name)

    def segment_task(self, task: Task, spec: ModelSpec, model: str) -> None:
        """Segment ``task`` with a model and show the result; returns at once."""
        device = self._model.state.device
        run = self.begin("Segmenting…")
        self._background.run(
            lambda: run.segment(task, spec, device, model=model, kept=self._correct.kept),
            lambda outcome: self._finished(run, outcome),
            lambda error: self.end(run, error),
            name="xlstm-unet-segment",
        )

    def cancel(self) -> None:
        """Cancel the running work; it ends within about a second and leaves no layer."""
        if self._run is not None:
            self.job.phase = Phase.CANCELLING
            self.job.status = "Cancelling…"
            self._run.cancel()
            self._give_up_later(self._run)

    def begin(self, status: str) -> Run:
        """Mark that work is running and return the handle that it is done with."""
        run = Run(self._backend, lambda fraction, text: self._report(run, fraction, text))
        self._run = run
        self.job.finish = Finish.NONE
        self.job.progress = 0.0
        self.job.status = status
        self.job.phase = Phase.RUNNING
        return run

    def end(self, run: Run, error: Exception | None = None, status: str = "") -> None:
        """Mark that ``run`` has ended, and tell an error to the user."""
        if run is not self._run:
            return
        self._run = None
        if isinstance(error, CancelledError):
            self.job.finish, status = Finish.CANCELLED, "Cancelled."
        elif error is not None:
            self.job.finish, status = Finish.FAILED, "Failed."
            tell_error(error)
        else:
            self.job.finish = Finish.DONE
        self.job.status = status
        self.job.progress = 0.0
        self.job.phase = Phase.READY

    def close(self) -> None:
        """Cancel what is running."""
        if self._run is not None:
            self._run.cancel()

    def _finished(self, run: Run, outcome: Outcome) -> None:
        if run.cancelled:
            self.end(run, CancelledError())
            return
        before = self._results.handles_in_use()
        result = self._results.show(outcome)
        self._backend.release(before - self._results.handles_in_use())
        if outcome.diameter is not None and self._image.state.auto_diameter:
            self._image.state.diameter = round(outcome.diameter, 1)
        self._adjust.attach(result)
        self.end(run, status=_summary(outcome))

    def _give_up_later(self, run: Run) -> None:
        """Go on without ``run`` if it hangs in reading the image; what it gives then is dropped."""
        timer = threading.Timer(
            GIVE_UP_SECONDS, lambda: self._background.post(lambda: self.end(run, CancelledError()))
        )
        timer.daemon = True
        timer.start()

    def _report(self, run: Run, fraction: float, text: str) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self._background.post(lambda: self._show(run, fraction, text))

    def _show(self, run: Run, fraction: float, text: str) -> None:
        if run is self._run and not run.cancelled:
            self.job.progress = fraction
            self.job.status = text


def _summary(outcome: Outcome) -> str:
    found = (
        f"{outcome.count} object{'s' * (outcome.count != 1)}" if outcome.spec.task == "instances" else "Done"
    )
    mine = ("What you corrected and accepted is in it.",) if outcome.kept is not None else ()
    return " ".join((f"{found} in {outcome.seconds:.1f} s.", *mine, *outcome.notes[:2]))
