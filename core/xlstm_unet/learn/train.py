"""Training a model: steps, validation, checkpoints; killed and resumed it ends the same."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from xlstm_unet.errors import CancelledError, DatasetError, TrainingError
from xlstm_unet.files import atomic_path
from xlstm_unet.learn import checkpoint
from xlstm_unet.learn.bank import Bank
from xlstm_unet.learn.config import TrainConfig
from xlstm_unet.learn.dataset import Dataset
from xlstm_unet.learn.grid import on_model_grid
from xlstm_unet.learn.log import Log
from xlstm_unet.learn.optimise import BatchSource, Optimisation
from xlstm_unet.learn.replay import ReplayPack, make_replay
from xlstm_unet.learn.start_from import copy_fitting
from xlstm_unet.learn.team import Team, make_team, team_device
from xlstm_unet.learn.validate import Validator
from xlstm_unet.nets import Network, best_device, build_network
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.spec import ModelSpec

LOG_INTERVAL = 50
"""Steps between lines of the log; the loss is looked at only then, so that a GPU is never waited for."""
CHECKPOINT_SECONDS = 120.0

_CONFIG = "config.json"
_CHECKPOINT_KEYS = {"config", "data", "minutes", "step", "seconds", "loss_sum", "generators", "optimisation"}
_BEST_KEYS = {"step", "scores", "weights"}


@dataclass(frozen=True)
class TrainEvent:
    """Something to show while training.

    Parameters
    ----------
    kind
        "note" (``message``), "step" (loss, rate), "validation" (scores).
    step, total
        Steps taken; steps in all, None where a time budget decides.
    share
        Share of the training that is done, 0 to 1.
    """

    kind: Literal["note", "step", "validation"]
    step: int
    total: int | None
    share: float
    message: str = ""
    loss: float | None = None
    steps_per_second: float | None = None
    scores: dict[str, float] | None = None


OnEvent = Callable[[TrainEvent], None]


@dataclass(frozen=True)
class TrainResult:
    """A trained model.

    Parameters
    ----------
    spec
        Model with decoding defaults and object diameter filled in.
    network
        Best averaged weights, float32, on the CPU, in evaluation mode.
    scores
        On the validation split, with these decoding defaults (see `Validator.scores`).
    replay
        Patches for later fine-tuning.
    steps, best_step
        Steps taken, and after which of them the weights were kept.
    seconds
        Time spent in steps and validation.
    """

    spec: ModelSpec
    network: Network
    scores: dict[str, float]
    replay: ReplayPack
    steps: int
    best_step: int
    seconds: float


def train(
    config: TrainConfig,
    dataset: Dataset,
    run_dir: Path | str,
    *,
    device: str = "auto",
    minutes: float | None = None,
    resume: bool = False,
    network_type: type[Network] = Network,
    start: Mapping[str, Tensor] | None = None,
    on_event: OnEvent | None = None,
    cancel: Cancel | None = None,
) -> TrainResult:
    """Train a model and return it with the best weights by validation score.

    ``run_dir`` holds ``config.json``, ``log.jsonl``, ``curve.png`` (with matplotlib), ``best.pt`` and
    ``checkpoint.pt``. On a CPU the result of a killed and resumed run equals that of an unbroken one bit
    for bit.

    Parameters
    ----------
    config
        What is trained, and how.
    dataset
        Samples with splits "train" and "val".
    run_dir
        Folder of the run.
    device
        "auto", "cpu", "cuda" or "mps".
    minutes
        Time for steps and validation instead of ``config.optimiser.steps``; the schedule follows the clock.
    resume
        Go on from the last checkpoint of ``run_dir``.
    network_type
        Class of the network that is built from the model, where another than the usual one is compared.
    start
        Weights to start from (`starting_weights` of another model): those that fit are copied.
    on_event
        Told every `LOG_INTERVAL` steps and after every validation.
    cancel
        Asked at every step; a checkpoint is written before `CancelledError` is raised.

    Raises
    ------
    DatasetError
        If samples do not fit the model or a split is missing.
    TrainingError
        If the loss is not finite, or the checkpoint is damaged or of another configuration or data.
    CancelledError
        If ``cancel`` says so.
    """
    for split in ("train", "val"):
        if not dataset.split(split):
            raise DatasetError(f"{dataset.name} has no samples in split {split!r}.", "Training needs both.")
    team = make_team(device)
    where = team_device(team, best_device(device))
    run = _Run(config, dataset, Path(run_dir), where, team, minutes, network_type, on_event, cancel)
    if start is not None:
        run.start_from(start)
    return run.train(resume)


class _Run:
    """A training under way."""

    def __init__(
        self,
        config: TrainConfig,
        dataset: Dataset,
        folder: Path,
        device: torch.device,
        team: Team,
        minutes: float | None,
        network_type: type[Network],
        on_event: OnEvent | None,
        cancel: Cancel | None,
    ) -> None:
        self.config, self.dataset, self.folder, self.device = config, dataset, folder, device
        self.team, self.minutes, self.network_type = team, minutes, network_type
        self.on_event, self.cancel = on_event, cancel
        self.fingerprint = dataset.fingerprint()
        self.dataset = dataset = on_model_grid(dataset, config.model, cancel=cancel)
        samples = dataset.split("train")
        bank = Bank(samples, config.model, device, cancel=cancel)
        self.spec = config.model.model_copy(update={"object_diameter": _typical_diameter(bank.diameters)})
        modalities = [sample.modality for sample in samples]
        self.source = BatchSource(bank, modalities, config, seed=team.seed(config.seed))
        self.validator = Validator(
            dataset.split("val"), self.spec, device, max_images=config.validation.max_images, cancel=cancel
        )
        generator = torch.Generator().manual_seed(config.seed)
        network = build_network(self.spec, generator=generator, network_type=network_type)
        self.optimisation = Optimisation(network.to(device).train(), config, team)
        self.step = 0
        self.best: dict[str, Any] | None = None
        self._earlier_seconds = 0.0
        self._started = self._saved = time.monotonic()
        self._loss_sum = torch.zeros((), device=device)
        self._rate_from = (0, self._started)
        self._now = 0.0
        self.log: Log | None = None

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of another model that fit; the averaged weights start from them too."""
        network = self.optimisation.network
        fresh = copy_fitting(network, weights)
        self.optimisation.average.load_state_dict(network.state_dict())
        self._tell("note", message=f"New weights: {len(fresh)} of {len(network.state_dict())} tensors.")

    def train(self, resume: bool) -> TrainResult:
        """Run to the end."""
        self._open(resume)
        for note in self.dataset.notes:
            self._tell("note", message=note)
        try:
            while not self._finished():
                check_cancelled(self.cancel)
                self._one_step()
        except (CancelledError, KeyboardInterrupt):
            if self.team.size == 1:
                self._save()
            raise
        if self.best is None or self.step % self.config.validation.interval:
            self._validate()
        self._save()
        self.team.wait()
        if self.team.rank:
            self.best = checkpoint.load(self.folder / checkpoint.BEST, _BEST_KEYS)
        return self._result()

    def _open(self, resume: bool) -> None:
        path = self.folder / checkpoint.CHECKPOINT
        if resume:
            self._restore(checkpoint.load(path, _CHECKPOINT_KEYS))
        elif path.exists():
            raise TrainingError(
                f"{self.folder} holds a training already.",
                "Resume it, or choose another folder.",
            )
        self.team.wait()
        if not self.team.rank:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.folder / _CONFIG) as temporary:
                temporary.write_text(self.config.model_dump_json(indent=2) + "\n", encoding="utf-8")
            self.log = Log(self.folder, keep_until=self.step if resume else -1)
        self._started = self._saved = time.monotonic()
        self._rate_from = (self.step, self._started)

    def _seconds(self) -> float:
        return self._earlier_seconds + time.monotonic() - self._started

    def _share(self) -> float:
        if self.minutes is None:
            return self.step / self.config.optimiser.steps
        return self._seconds() / (60 * self.minutes)

    def _finished(self) -> bool:
        # A team looks at the clock of its first process, and not at every step.
        if self.minutes is None or self.team.size == 1 or self.step % LOG_INTERVAL == 0:
            self._now = self._share() if self.minutes is None else self.team.agreed(self._share())
        return self._now >= 1.0

    def _one_step(self) -> None:
        image, targets = self.source.draw()
        loss = self.optimisation.step(image, targets, self.step, self._now)
        self._loss_sum += loss
        self.step += 1
        if self.step % LOG_INTERVAL == 0:
            self._report_loss()
        if self.step % self.config.validation.interval == 0:
            self._validate()
        late = time.monotonic() - self._saved > CHECKPOINT_SECONDS
        if self.team.size > 1:
            late = self.step % LOG_INTERVAL == 0 and bool(self.team.agreed(late))
        if late:
            self._save()

    def _report_loss(self) -> None:
        loss = self._mean_loss()
        self._loss_sum.zero_()
        first, since = self._rate_from
        now = time.monotonic()
        rate = (self.step - first) / max(now - since, 1e-9)
        self._rate_from = (self.step, now)
        self._note(
            loss=round(loss, 5),
            learning_rate=self.optimisation.rate(self.step, self._now),
            steps_per_second=round(rate, 2),
            seconds=round(self._seconds(), 1),
        )
        self._tell("step", loss=loss, steps_per_second=rate)

    def _mean_loss(self) -> float:
        """Mean loss since the last line of the log; waits for the device."""
        steps = self.step % LOG_INTERVAL or LOG_INTERVAL
        loss = float(self.team.mean(self._loss_sum)) / steps
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss is {loss} within the {steps} steps to step {self.step}.",
                "Lower optimiser.learning_rate, and check the images for extreme values.",
            )
        return loss

    def _note(self, **values: Any) -> None:
        if self.log is not None:
            self.log.add(step=self.step, **values)

    def _validate(self) -> None:
        if self.log is None:
            return
        network = self._network(self.optimisation.average.state_dict())
        maps = self.validator.predict(network, cancel=self.cancel)
        scores = self.validator.scores(maps, self.spec.decoding, cancel=self.cancel)
        if self.best is None or scores["score"] > self.best["scores"]["score"]:
            weights = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
            self.best = {"step": self.step, "scores": scores, "weights": weights}
            checkpoint.save(self.folder / checkpoint.BEST, self.best)
        self._note(validation=scores, seconds=round(self._seconds(), 1))
        self.log.draw()
        self._tell("validation", scores=scores)
        self._rate_from = (self.step, time.monotonic())

    def _network(self, weights: dict[str, Tensor]) -> Network:
        network = build_network(self.spec, network_type=self.network_type)
        network.load_state_dict(weights)
        return network.eval()

    def _save(self) -> None:
        self._mean_loss()
        generators = self.team.gathered(self.source.generator.get_state())
        self._saved = time.monotonic()
        if self.team.rank:
            return
        state = {
            "config": self.config.model_dump_json(),
            "data": self.fingerprint,
            "minutes": self.minutes,
            "step": self.step,
            "seconds": self._seconds(),
            "loss_sum": self._loss_sum.cpu(),
            "generators": generators,
            "optimisation": self.optimisation.state_dict(),
        }
        checkpoint.save(self.folder / checkpoint.CHECKPOINT, state)

    def _restore(self, state: dict[str, Any]) -> None:
        for what, key, value in (
            ("configuration", "config", self.config.model_dump_json()),
            ("data", "data", self.fingerprint),
            ("time budget", "minutes", self.minutes),
            ("number of processes", "generators", self.team.size),
        ):
            found = len(state[key]) if key == "generators" else state[key]
            if found != value:
                raise TrainingError(
                    f"The run in {self.folder} has another {what}.",
                    "Resume with what it was started with, or choose another folder.",
                )
        self.step, self._earlier_seconds = state["step"], state["seconds"]
        self._loss_sum.copy_(state["loss_sum"])
        self.source.generator.set_state(state["generators"][self.team.rank])
        self.optimisation.load_state_dict(state["optimisation"])
        path = self.folder / checkpoint.BEST
        if path.exists():
            best = checkpoint.load(path, _BEST_KEYS)
            # Weights kept after the checkpoint was written will be found again.
            self.best = best if best["step"] <= self.step else None

    def _result(self) -> TrainResult:
        if self.best is None:
            raise TrainingError("No weights were kept.")
        network = self._network(self.best["weights"])
        maps = self.validator.predict(network, cancel=self.cancel)
        spec, scores = self.spec, self.best["scores"]
        if spec.task == "instances":
            decoding = self.validator.choose_decoding(maps, self.config.validation, cancel=self.cancel)
            spec = spec.model_copy(update={"decoding": decoding})
            scores = self.validator.scores(maps, decoding, cancel=self.cancel)
        best_step = int(self.best["step"])
        self._note(result=scores, best_step=best_step, decoding=spec.decoding.model_dump())
        replay = make_replay(
            self.dataset.split("train"), self.dataset.split("val"), spec, licence=self.config.data_licence
        )
        return TrainResult(
            spec=spec,
            network=network,
            scores=scores,
            replay=replay,
            steps=self.step,
            best_step=best_step,
            seconds=self._seconds(),
        )

    def _tell(self, kind: Literal["note", "step", "validation"], **values: Any) -> None:
        if self.on_event is not None and not self.team.rank:
            total = None if self.minutes is not None else self.config.optimiser.steps
            self.on_event(TrainEvent(kind, self.step, total, min(1.0, self._share()), **values))


def _typical_diameter(diameters: Tensor) -> float | None:
    """Median over images of the median object diameter, rounded to a tenth of a pixel."""
    known = diameters[~torch.isnan(diameters)]
    return round(float(known.median()), 1) if len(known) else None
