"""Fine-tuning a model on a user's corrections, within a time and without losing what it knew."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from xlstm_unet.errors import CorrectionsError, ModelError, TrainingError
from xlstm_unet.learn.corrections import Corrections, total_counts
from xlstm_unet.learn.corrections_prepare import pieces_of
from xlstm_unet.learn.finetune_batches import BatchMaker, crop_size
from xlstm_unet.learn.finetune_clock import Clock
from xlstm_unet.learn.finetune_judge import NAMES, Judge, held_masks, hold_out
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.learn.finetune_steps import FAR, OF_CLASSES, Learner, mixed, root_share
from xlstm_unet.learn.guard import FEWEST, Comparison, Verdict, compare, judge
from xlstm_unet.learn.replay import ReplayPack
from xlstm_unet.nets import Network, best_device
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.segment.memory import MemoryLadder, Setting
from xlstm_unet.spec import ModelSpec

OnEvent = Callable[[Mapping[str, Any]], None]

DEFAULT_BUDGET = 60.0
LEAST_BUDGET, MOST_BUDGET = 10.0, 3600.0
MOST_STEPS = 100_000
ALL_SHARE = 0.7
"""Share of the steps after which what was kept back is learnt too."""
CHECK_INTERVAL = 25
"""Steps between looks at what was kept back."""
LOOKS = 16
"""Batches by which it is judged how near the corrections are to what the root knows."""

_MOST_EVENTS = 500


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned network and how it compares with its root.

    Parameters
    ----------
    spec
        The root's.
    network
        float32, on the CPU, in evaluation mode; it has learnt from all corrections.
    held_out
        On corrected objects before they were learnt from; None where there are too few.
    check
        On the check part of the replay pack, which is never learnt from; None without a pack.
    verdict, message
        What the guard says; see `xlstm_unet.learn.guard`.
    steps, switch
        Steps taken; after ``switch`` of them all corrections were learnt from, before that not those kept
        back. `finetune` with these two numbers gives the same network again.
    best_step
        Step whose weights were judged on the corrections kept back.
    root_share
        Share of the root's weights in the network's.
    seconds, seconds_per_step
        All the time taken, and of one step.
    curve
        Events (see `finetune`), thinned to at most 500.
    counts
        What was corrected in all images, as `xlstm_unet.learn.supervision.Changes` counts it.
    device
        Where it learnt.
    notes
        What the user should know.
    """

    spec: ModelSpec
    network: Network
    held_out: Comparison | None
    check: Comparison | None
    verdict: Verdict
    message: str
    steps: int
    switch: int
    best_step: int
    root_share: float
    seconds: float
    seconds_per_step: float
    curve: tuple[dict[str, Any], ...]
    counts: dict[str, int]
    device: str
    notes: tuple[str, ...]


def finetune(
    spec: ModelSpec,
    network: Network,
    corrections: Sequence[Corrections],
    *,
    budget: float | None = None,
    steps: int | None = None,
    switch: int | None = None,
    replay: ReplayPack | None = None,
    options: FineTuneOptions | None = None,
    device: str = "auto",
    on_event: OnEvent | None = None,
    cancel: Cancel | None = None,
    stop: Cancel | None = None,
) -> FineTuned:
    """Fine-tune a root model on corrections of one or several images.

    Parameters
    ----------
    spec, network
        The root model; it stays as it is.
    corrections
        One entry an image.
    budget
        Seconds that all of it may take; with neither ``budget`` nor ``steps`` 60.
    steps
        Number of steps instead: the same result bit for bit on the same CPU.
    switch
        With ``steps``: from which step on all corrections are learnt from; by default after 7 in 10.
    replay
        The root's replay pack; without it forgetting is neither prevented nor measured.
    options
        How; the defaults are what users get.
    device
        As for `xlstm_unet.nets.best_device`.
    on_event
        Called with ``{"event": "step" | "scores" | "note", ...}`` (see ``docs/worker-protocol.md``).
    cancel, stop
        Asked before every layer: give up with `CancelledError`, or end now with the best so far.

    Raises
    ------
    CorrectionsError
        If nothing is corrected or accepted, or corrections do not fit the model.
    ModelError
        If the model cannot be fine-tuned, or budget or steps are out of range.
    TrainingError
        If the loss is not finite.
    DeviceError
        If memory does not suffice.
    CancelledError
        If ``cancel`` says so.
    """
    check_can_learn(spec)
    options = options or FineTuneOptions()
    if steps is None:
        budget = _checked("budget", DEFAULT_BUDGET if budget is None else budget, LEAST_BUDGET, MOST_BUDGET)
    else:
        budget, steps = None, int(_checked("steps", steps, 1, MOST_STEPS))
    started = time.monotonic()
    size = crop_size(spec, options)
    smallest = size if network.fixed_size else tuple(network.total_stride)
    ladder = MemoryLadder(Setting(best_device(device), size, options.batch), smallest)

    def attempt(setting: Setting) -> FineTuned:
        run = _Run(spec, network, corrections, replay, options, setting, on_event, cancel, stop)
        return run.go(started, budget, steps, switch)

    result = ladder.run(attempt)
    return replace(result, notes=(*result.notes, ladder.note)) if ladder.note else result


def check_can_learn(spec: ModelSpec) -> None:
    """Raise `ModelError` if models like this cannot be fine-tuned."""
    for found, what in (
        (spec.folds > 1, f"averages {spec.folds} networks"),
        (spec.pipeline != "own", "prepares images as nnU-Net does"),
        (bool(spec.regions), "gives overlapping regions"),
    ):
        if found:
            raise ModelError(
                f"{spec.name} {what} and cannot be fine-tuned.", "Choose a model of a single network."
            )


class _Stopped(Exception):
    """The user asked for the end."""


class _Run:
    """One attempt at one memory setting."""

    def __init__(
        self,
        spec: ModelSpec,
        root: Network,
        corrections: Sequence[Corrections],
        replay: ReplayPack | None,
        options: FineTuneOptions,
        setting: Setting,
        on_event: OnEvent | None,
        cancel: Cancel | None,
        stop: Cancel | None,
    ) -> None:
        self.spec, self.root, self.replay = spec, root, replay
        self.options = options.model_copy(update={"batch": setting.batch})
        self.setting, self.device = setting, setting.device
        self.share = FAR[1]
        self._on_event, self._cancel, self._stop = on_event, cancel, stop
        self._events: list[dict[str, Any]] = []
        self.pieces, changes = pieces_of(corrections, spec, cancel=cancel)
        if not self.pieces:
            raise CorrectionsError(
                "Nothing is corrected or accepted: there is nothing to learn.",
                "Correct some objects, or accept a region that is right.",
            )
        self.counts = {**total_counts(changes), "images": len({piece.source for piece in self.pieces})}
        self.settled = self.counts["corrected"] + self.counts["accepted"]
        enough = options.judge and self.settled >= FEWEST
        self.items = hold_out(self.pieces, spec, options.hold_out, options.seed) if enough else []
        patches = replay.check if replay is not None and options.judge else ()
        self.judge = Judge(spec, self.pieces, self.items, patches, self.device, cancel)

    def go(self, started: float, budget: float | None, steps: int | None, switch: int | None) -> FineTuned:
        clock = Clock(started, budget, steps)
        before = time.monotonic()
        held_before, check_before = self.judge.held_out(self.root), self.judge.check(self.root)
        clock.reserve = (time.monotonic() - before) * 1.2 + 0.3
        self._scores(clock, held_before, check_before)
        learner = self._learner()
        self._choose_share(learner)
        best = self._train(clock, learner, switch)
        network = self._network(learner)
        check_after = self.judge.check(network)
        self._scores(clock, best.held_out, check_after)
        held = compare(NAMES[self.spec.task][0], held_before, best.held_out)
        check = compare(NAMES[self.spec.task][1], check_before, check_after)
        verdict, message = judge(held, check, self.settled) if self.options.judge else ("keep", "Not judged.")
        return FineTuned(
            spec=self.spec,
            network=network.eval(),
            held_out=held,
            check=check,
            verdict=verdict,
            message=message,
            steps=clock.done,
            switch=best.switch,
            best_step=best.step,
            root_share=self.share,
            seconds=time.monotonic() - started,
            seconds_per_step=clock.seconds_per_step,
            curve=tuple(self._events[:: -(-len(self._events) // _MOST_EVENTS)]),
            counts=self.counts,
            device=str(self.device),
            notes=self._notes(),
        )

    def _learner(self) -> Learner:
        network = deepcopy(self.root).to(self.device).train()
        anchored = self.options.anchor and self.options.replay_share and self.replay is not None
        taught = self.options.distillation or anchored
        teacher = deepcopy(self.root).to(self.device).eval() if taught else None
        return Learner(network, self.options, teacher, self._interrupt)

    def _choose_share(self, learner: Learner) -> None:
        """Set the root's share of the weights: as given, or by what the root makes of corrected objects."""
        if self.options.root_share is not None:
            self.share = self.options.root_share
        elif self.spec.task == "classes":
            self.share = OF_CLASSES
        elif self.replay is not None and self.replay.train and self.options.replay_share:
            batches = self._batches(held_masks(self.pieces, self.items) if self.items else None)
            with suppress(_Stopped):
                self.share = root_share([learner.look(batches.draw()) for _ in range(LOOKS)])

    def _network(self, learner: Learner) -> Network:
        """Return what is scored and kept: averaged weights, mixed with the root's."""
        network = deepcopy(self.root).cpu()
        averaged = {name: tensor.cpu() for name, tensor in learner.average.state_dict().items()}
        network.load_state_dict(mixed(network.state_dict(), averaged, self.share))
        return network

    def _interrupt(self) -> None:
        check_cancelled(self._cancel)
        if self._stop is not None and self._stop():
            raise _Stopped

    def _batches(self, masks: Sequence[Any] | None) -> BatchMaker:
        supervisions = [
            piece.supervision(self.spec, None if masks is None else masks[number])
            for number, piece in enumerate(self.pieces)
        ]
        replay = () if self.replay is None else self.replay.train
        return BatchMaker(
            self.pieces, supervisions, replay, self.spec, self.options, self.setting.tile, self.device
        )

    def _train(self, clock: Clock, learner: Learner, switch: int | None) -> _Best:
        """Learn without what is kept back, then from the best weights on with all of it."""
        clock.training_from = time.monotonic()
        best = _Best(switch=0)
        try:
            if self.items:
                batches = self._batches(held_masks(self.pieces, self.items))
                end = None if clock.steps is None else round(ALL_SHARE * clock.steps)
                end = switch if switch is not None and clock.steps is not None else end
                while not clock.over() and (clock.share() < ALL_SHARE if end is None else clock.done < end):
                    self._step(clock, learner, batches)
                    if clock.done % CHECK_INTERVAL == 0:
                        self._look(clock, learner, best)
                self._look(clock, learner, best)
                best.switch = clock.done
                learner.restore(best.state)
            batches = self._batches(None)
            while not clock.over():
                self._step(clock, learner, batches)
        except _Stopped:
            if self.items and not best.switch:
                self._look(clock, learner, best)
                best.switch = clock.done
                learner.restore(best.state)
        if not self.items:
            best.step = clock.done
        return best

    def _step(self, clock: Clock, learner: Learner, batches: BatchMaker) -> None:
        self._interrupt()
        since = time.monotonic()
        loss = learner.step(batches.draw())
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} at step {clock.done + 1}.", "Check the image for extreme values."
            )
        clock.done += 1
        clock.times.append(time.monotonic() - since)
        self._tell(
            {
                "event": "step",
                "step": clock.done,
                "steps": clock.planned(),
                "loss": round(loss, 5),
                "seconds": round(time.monotonic() - clock.started, 2),
                "seconds_left": round(clock.left(), 1),
            }
        )

    def _look(self, clock: Clock, learner: Learner, best: _Best) -> None:
        """Score the weights as they would be kept on what is kept back; remember them if best so far."""
        if best.step == clock.done and best.state:
            return
        network = self._network(learner)
        scores = self.judge.held_out(network)
        self._scores(clock, scores, [])
        mean = sum(scores) / len(scores)
        if not best.state or mean >= best.mean:
            best.mean, best.held_out, best.step, best.state = mean, scores, clock.done, learner.state()

    def _scores(self, clock: Clock, held_out: list[float], check: list[float]) -> None:
        self._tell(
            {
                "event": "scores",
                "step": clock.done,
                "held_out": _mean(held_out),
                "check": _mean(check),
                "seconds": round(time.monotonic() - clock.started, 2),
            }
        )

    def _tell(self, event: dict[str, Any]) -> None:
        self._events.append(event)
        if self._on_event is not None:
            self._on_event(event)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        if self.replay is None:
            notes.append("The model has no replay pack: what it forgot cannot be measured.")
        return tuple(notes)


@dataclass
class _Best:
    """The weights that did best on what was kept back."""

    switch: int
    step: int = 0
    mean: float = -1.0
    held_out: list[float] = field(default_factory=list)
    state: dict[str, Any] = field(default_factory=dict)


def _mean(scores: list[float]) -> float | None:
    return round(sum(scores) / len(scores), 4) if scores else None


def _checked(name: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise ModelError(f"{name} is {value}, expected {low:g} to {high:g}.")
    return value
