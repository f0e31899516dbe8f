"""The part "Fine-tune": starts it, follows it, shows before and after, keeps or discards what came of it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.compare import Comparison, shown_piece
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.learn_state import Curve, FinetuneState, Shown, Training, Version
from napari_xlstm_unet.learning import Learning
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell, tell_error
from napari_xlstm_unet.results import Outcome, Result
from napari_xlstm_unet.segment_part import SegmentPart
from napari_xlstm_unet.state import Phase
from napari_xlstm_unet.versions_part import VersionsPart
from xlstm_unet.errors import CancelledError
from xlstm_unet.progress import Progress
from xlstm_unet.worker import Job

if TYPE_CHECKING:
    from napari.components import ViewerModel

SHOW_SECONDS = 0.2
"""The curve grows at most this often."""

_STAGES = {
    "preparing": "Preparing…",
    "before": "Measuring the model as it is…",
    "training": "Fine-tuning…",
    "after": "Measuring the new version…",
}


@dataclass
class _Session:
    """One fine-tuning, from its start to its end."""

    job: Job | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)
    loss: list[tuple[float, float]] = field(default_factory=list)
    held_out: list[tuple[float, float]] = field(default_factory=list)
    check: list[tuple[float, float]] = field(default_factory=list)
    shown_at: float = 0.0


class FinetunePart:
    """Fine-tunes the model of the selected result on all of its corrections.

    Parameters
    ----------
    viewer
        The viewer.
    learning, background
        The worker, and threads to wait for it on.
    model, segment, correct, versions
        The other parts.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        learning: Learning,
        background: Background,
        *,
        model: ModelPart,
        segment: SegmentPart,
        correct: CorrectPart,
        versions: VersionsPart,
    ) -> None:
        self.state = FinetuneState()
        self._viewer = viewer
        self._learning = learning
        self._background = background
        self._model = model
        self._segment = segment
        self._correct = correct
        self._versions = versions
        self._session: _Session | None = None
        self._compared: Result | None = None
        self._decided: set[str] = set()
        """Versions that were kept or discarded, which a list on its way may still name."""
        self._comparison = Comparison(viewer)
        self.state.events.shown.connect(self._show)
        versions.state.events.waiting.connect(self._resume)

    def start(self) -> None:
        """Fine-tune within the chosen budget; returns at once."""
        job = self._segment.job
        if job.phase is not Phase.READY or self.state.phase not in (Training.IDLE, Training.JUDGING):
            return
        if self.state.pending is not None:
            self.discard()
        model = self._correct.state.model or self._model.state.name
        device, budget = self._model.state.device, self.state.budget
        session = self._session = _Session()
        job.phase = Phase.TRAINING
        state = self.state
        state.curve, state.progress, state.status = Curve(), 0.0, "Saving corrections…"
        state.phase = Training.RUNNING

        def train() -> Version:
            self._correct.flush()
            session.job = self._learning.finetune(
                model, device, budget, lambda step: self._event(session, step)
            )
            if session.cancelled.is_set():
                session.job.cancel()
            return Version.of(session.job.result().values)

        self._background.run(
            train,
            lambda version: self._finished(session, version),
            lambda error: self._failed(session, error),
            name="xlstm-unet-finetune",
        )

    def stop(self) -> None:
        """End now with the best so far; returns at once."""
        if self.state.phase is Training.RUNNING:
            self.state.phase = Training.STOPPING
            self.state.status = "Stopping; the best so far is measured…"
            self._learning.stop()

    def cancel(self) -> None:
        """End now and drop what was learned; it ends within about a second."""
        session = self._session
        if session is not None and self.state.phase in (Training.RUNNING, Training.STOPPING):
            self.state.phase = Training.CANCELLING
            self.state.status = "Cancelling…"
            session.cancelled.set()
            if session.job is not None:
                session.job.cancel()

    def keep(self) -> None:
        """Keep the new version, also against the guard's advice; the image is segmented with it."""
        version, result = self.state.pending, self._compared
        if version is None or self._segment.job.phase is not Phase.READY:
            return
        self._segment.job.phase = Phase.TRAINING
        self.state.phase = Training.KEEPING
        self.state.status = "Keeping…"
        force = version.verdict == "refuse"
        self._background.run(
            lambda: self._learning.keep(version.id, force=force),
            lambda kept: self._kept(kept, result),
            self._not_kept,
            name="xlstm-unet-keep",
        )

    def discard(self) -> None:
        """Drop the new version: the model stays as it was."""
        version = self.state.pending
        if version is None or self.state.busy:
            return
        self._judged("Discarded; the model is as it was.")
        self._background.run(
            lambda: self._learning.discard(version.id),
            lambda _: self._versions.refresh(),
            tell_error,
            name="xlstm-unet-discard",
        )

    def close(self) -> None:
        """Cancel what is running; a version that waits for a decision is offered again next time."""
        if self._session is not None:
            self._session.cancelled.set()
            if self._session.job is not None:
                self._session.job.cancel()
        self._comparison.end()

    def _event(self, session: _Session, step: Progress) -> None:
        """Take a message of the worker, on its thread."""
        values = step.values or {}
        if values.get("event") == "step":
            session.loss.append((values["seconds"], values["loss"]))
        elif values.get("event") == "scores":
            for name in ("held_out", "check"):
                if values[name] is not None:
                    getattr(session, name).append((values["seconds"], values[name]))
        now = time.monotonic()
        if now - session.shown_at >= SHOW_SECONDS or values.get("event") in ("scores", "note"):
            session.shown_at = now
            curve = Curve(tuple(session.loss), tuple(session.held_out), tuple(session.check))
            self._background.post(lambda: self._show_step(session, step, curve))

    def _show_step(self, session: _Session, step: Progress, curve: Curve) -> None:
        state = self.state
        if session is not self._session or state.phase is not Training.RUNNING:
            return
        values = step.values or {}
        state.curve = curve
        state.progress = step.done / max(step.total, 1) if step.stage == "training" else state.progress
        if values.get("event") == "note":
            tell(values["message"])
        if "seconds_left" in values:
            left = round(values["seconds_left"])
            state.status = f"Step {values['step']} of about {values['steps']}, {left} s left"
        elif step.stage in _STAGES and step.stage != "training":
            state.status = _STAGES[step.stage]

    def _finished(self, session: _Session, version: Version) -> None:
        if session is not self._session:
            return
        self._session = None
        state = self.state
        state.curve = Curve(tuple(session.loss), tuple(session.held_out), tuple(session.check))
        self._segment.job.phase = Phase.READY
        self._judge(version, f"{version.steps} steps in {version.seconds:.0f} s.")

    def _judge(self, version: Version, status: str) -> None:
        """Let the user decide, with the current image before and after."""
        state = self.state
        state.progress, state.status = 0.0, status
        state.pending = version
        state.phase = Training.JUDGING
        result = self._correct.result
        if result is not None:
            self._compare(version, result)

    def _compare(self, version: Version, result: Result) -> None:
        """Segment what is shown of the current image with the new version."""
        outcome = result.outcome
        task, index = shown_piece(outcome.task, result.layer, self._viewer)
        device = self._model.state.device
        run = self._segment.begin("Segmenting with the new version…")

        def done(after: Outcome) -> None:
            self._segment.end(run)
            if self.state.pending is version:
                self._compared = result
                self._comparison.begin(result, after, index)
                self.state.can_compare = True
                self.state.shown = Shown.AFTER

        self._background.run(
            lambda: run.segment(task, outcome.spec, device, model=version.folder, keep_maps=False),
            done,
            lambda error: self._segment.end(run, error),
            name="xlstm-unet-compare",
        )

    def _failed(self, session: _Session, error: Exception) -> None:
        if session is not self._session:
            return
        self._session = None
        self._segment.job.phase = Phase.READY
        self.state.phase = Training.IDLE
        self.state.progress = 0.0
        if isinstance(error, CancelledError):
            self.state.status = "Cancelled; the model is as it was."
        else:
            self.state.status = "Failed; the model is as it was."
            tell_error(error)

    def _kept(self, version: Version, result: Result | None) -> None:
        self._segment.job.phase = Phase.READY
        self._judged(f"Kept as version {version.number} of '{version.model}'.")
        self._model.refresh(version.model)
        self._versions.refresh()
        if result is not None:
            outcome = result.outcome
            task = replace(outcome.task, diameter=outcome.diameter)
            self._segment.segment_task(task, outcome.spec, version.model)

    def _not_kept(self, error: Exception) -> None:
        self._segment.job.phase = Phase.READY
        self.state.phase = Training.JUDGING
        self.state.status = ""
        tell_error(error)

    def _judged(self, status: str) -> None:
        state = self.state
        state.shown = Shown.MINE
        state.can_compare = False
        self._comparison.end()
        self._compared = None
        if state.pending is not None:
            self._decided.add(state.pending.id)
        state.pending = None
        state.status = status
        state.phase = Training.IDLE

    def _resume(self, waiting: tuple[Version, ...]) -> None:
        """Offer a version that an earlier session left undecided."""
        waiting = tuple(version for version in waiting if version.id not in self._decided)
        if waiting and self.state.phase is Training.IDLE and self.state.pending is None:
            self.state.pending = waiting[-1]
            self.state.status = "From an earlier session:"
            self.state.phase = Training.JUDGING

    def _show(self, shown: Shown) -> None:
        self._comparison.show(shown)
