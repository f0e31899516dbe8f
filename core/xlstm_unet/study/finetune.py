"""What corrections bring: simulated people correct, the model is fine-tuned, old and new images scored."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_unet.errors import ConfigError, TrainingError
from xlstm_unet.learn import Sample
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.finetune import finetune
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.measure import score_classes, score_instances
from xlstm_unet.nets import Network, build_network
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.annotator import (
    Corrected,
    Habits,
    correct_instances,
    correct_slices,
    seen_diameter,
)
from xlstm_unet.study.finetune_arms import ARMS, OURS, Arm, find_arm
from xlstm_unet.study.finetune_config import Protocol
from xlstm_unet.study.finetune_domain import Domain, make_domain
from xlstm_unet.study.finetune_report import write_report
from xlstm_unet.study.report import machine, write_json
from xlstm_unet.zoo import Bundle, load_model

RESULT = "result.json"
_BUDGET = 60.0


def evaluate_finetune(
    protocol: Protocol,
    data: Path,
    folder: Path,
    *,
    device: str = "auto",
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Run a protocol and write ``finetune.json``, ``finetune.md`` and, with matplotlib, ``finetune.png``.

    Every user opens images of the pool, corrects what the model of the moment gives, and fine-tunes; that is
    the arm "ours". The other arms learn from these corrections, but for those that make their own. Finished
    runs are kept in ``folder/runs`` when the same protocol is started again, and are all part of the report,
    so that arms may have different numbers of users. It is written anew after every run.

    Parameters
    ----------
    protocol
        What is done.
    data
        Folder that holds the data sets.
    folder
        Where runs and report go.
    device
        "auto", "cpu", "cuda" or "mps".
    on_progress, cancel
        Called for every run, and in it several times a second.

    Returns
    -------
    dict
        What ``finetune.json`` holds.

    Raises
    ------
    ConfigError, DatasetError, ModelError, TrainingError, OutputError
        If the protocol, the data, the model or a kept run does not fit.
    CancelledError
        If ``cancel`` says so; the run under way starts anew next time.
    """
    arms = [find_arm(name) for name in protocol.arms]
    if arms[0].name != OURS:
        raise ConfigError(
            f"{protocol.name}: the first arm is {arms[0].name!r}, expected {OURS!r}.",
            "The others learn from its corrections.",
        )
    study = _Study(protocol, make_domain(protocol, data, cancel=cancel), folder, device, cancel)
    root = study.root_scores()
    report: dict[str, Any] = {}
    todo = [(user, arm) for user in range(1, protocol.users + 1) for arm in arms]
    for done, (user, arm) in enumerate(todo):
        if on_progress is not None:
            on_progress(Progress(f"{arm.name}, user {user}", done, len(todo)))
        study.run(arm, user)
        report = {
            "protocol": protocol.model_dump(mode="json"),
            "metric": study.metric,
            "machine": machine(study.device),
            "images": {
                "pool": len(study.domain.pool),
                "target": len(study.domain.target),
                "source": len(study.domain.source),
            },
            "root": root,
            "runs": study.finished(),
        }
        report = write_report(folder, report)
    return report


@dataclass(frozen=True, eq=False)
class _Model:
    """The root, or what became of it."""

    spec: ModelSpec
    network: Network
    device: str

    def segment(self, sample: Sample, diameter: float | None, cancel: Cancel | None) -> NDArray[np.int32]:
        """Labels of an image whose objects have this diameter in pixels; estimated where it is None."""
        segmenter = Segmenter(self.spec, self.network, device=self.device)
        return segmenter(sample.image, diameter=diameter, cancel=cancel).labels


class _Study:
    """A protocol being run."""

    def __init__(
        self, protocol: Protocol, domain: Domain, folder: Path, device: str, cancel: Cancel | None
    ) -> None:
        self.protocol, self.domain, self.folder, self.cancel = protocol, domain, folder, cancel
        bundle: Bundle = load_model(protocol.model)
        self.replay = bundle.read_replay()
        self.root = _Model(bundle.spec, bundle.build(), device)
        self.instances = bundle.spec.task == "instances"
        self.metric: Literal["f1_50", "dice"] = "f1_50" if self.instances else "dice"

    @property
    def device(self) -> torch.device:
        """Where networks run."""
        return Segmenter(self.root.spec, self.root.network, device=self.root.device).device

    def root_scores(self) -> dict[str, Any]:
        """Scores of the root, measured once."""
        path = self.folder / "runs" / "root.json"
        if self._kept(path) is None:
            write_json(path, {"key": self._key(), **self._scores(self.root)})
        found = self._kept(path) or {}
        return {name: found[name] for name in ("target", "source")}

    def run(self, arm: Arm, user: int) -> None:
        """Run one arm for one user, if that was not done already."""
        folder = self.folder / "runs" / f"{arm.name}-{user}"
        if self._kept(folder / RESULT) is not None:
            return
        corrects = arm.name == OURS or arm.corrects
        rounds = list(self._rounds(arm, user, folder) if corrects else self._learnt(arm, user))
        result = {"key": self._key(), "arm": arm.name, "user": user, "rounds": rounds}
        write_json(folder / RESULT, result)

    def finished(self) -> list[dict[str, Any]]:
        """Results of all runs, arm by arm."""
        found = [self._kept(path) for path in (self.folder / "runs").glob(f"*/{RESULT}")]
        arms = list(ARMS)
        runs = [run for run in found if run is not None]
        return sorted(runs, key=lambda run: (arms.index(run["arm"]), run["user"]))

    def _rounds(self, arm: Arm, user: int, folder: Path) -> Iterator[dict[str, Any]]:
        """Correct and fine-tune, round by round."""
        habits = self.protocol.habits.model_copy(update=dict(arm.habits))
        order = np.random.default_rng(user).permutation(len(self.domain.pool))
        images = iter(order.tolist())
        model, gathered, done = self.root, [], 0
        for number, part in enumerate(self.protocol.rounds):
            left = part.corrections
            for image in range(part.images):
                index = next(images)
                found = self._correct(
                    model, index, round(left / (part.images - image)), habits, (user, number)
                )
                gathered.append((index, *found))
                left -= found[1].corrections
            done = sum(corrected.corrections for _, _, corrected in gathered)
            corrections = [self._corrections(i, before, after) for i, before, after in gathered]
            model, row = self._fine_tune(arm, user, corrections)
            yield {
                "corrections": done,
                "images": len(gathered),
                "wrong": sum(corrected.wrong for _, _, corrected in gathered),
                **row,
            }
        folder.mkdir(parents=True, exist_ok=True)
        _save_corrections(folder / "corrections.npz", gathered)

    def _learnt(self, arm: Arm, user: int) -> Iterator[dict[str, Any]]:
        """Fine-tune in another way on the corrections of "ours", or on whole true maps."""
        gathered = _load_corrections(self.folder / "runs" / f"{OURS}-{user}" / "corrections.npz")
        if arm.dense == "no":
            make = self._background if arm.untouched == "background" else self._corrections
            corrections = [make(i, before, after) for i, before, after in gathered]
            done = sum(corrected.corrections for _, _, corrected in gathered)
        else:
            order = np.random.default_rng(user).permutation(len(self.domain.pool)).tolist()
            chosen = order if arm.dense == "all" else order[: self.protocol.dense_images]
            corrections = [self._whole_truth(index) for index in chosen]
            done = sum(int(np.unique(c.labels[c.labels > 0]).size) for c in corrections)
        _, row = self._fine_tune(arm, user, corrections)
        yield {"corrections": done, "images": len(corrections), "wrong": 0, **row}

    def _correct(
        self, model: _Model, index: int, count: int, habits: Habits, seed: Sequence[int]
    ) -> tuple[NDArray[np.int32], Corrected]:
        sample = self.domain.pool[index]
        prediction = model.segment(sample, self._diameter(sample), self.cancel)
        generator = np.random.default_rng((*seed, index))
        correct = correct_instances if self.instances else correct_slices
        return prediction, correct(prediction, sample.labels, count, habits, generator)

    def _corrections(self, index: int, prediction: NDArray[np.int32], corrected: Corrected) -> Corrections:
        sample = self.domain.pool[index]
        diameter = self._diameter(sample)
        return Corrections(sample.image, prediction, corrected.labels, corrected.accepted, diameter)

    def _background(self, index: int, prediction: NDArray[np.int32], corrected: Corrected) -> Corrections:
        """Corrections whose untouched pixels are declared to be background."""
        sample, labels = self.domain.pool[index], corrected.labels
        touched = np.unique(labels[(labels != prediction) & (labels > 0)])
        alone = np.where(np.isin(labels, touched), labels, 0).astype(np.int32)
        everywhere = np.ones(alone.shape, bool)
        return Corrections(sample.image, np.zeros_like(alone), alone, everywhere, self._diameter(sample))

    def _whole_truth(self, index: int) -> Corrections:
        sample = self.domain.pool[index]
        nothing, everywhere = np.zeros_like(sample.labels), np.ones(sample.labels.shape, bool)
        return Corrections(sample.image, nothing, sample.labels, everywhere, self._diameter(sample))

    def _diameter(self, sample: Sample) -> float | None:
        """What every person sets as the diameter of the objects of an image; None: it is estimated."""
        if not self.instances or not self.protocol.habits.sets_diameter:
            return None
        generator = np.random.default_rng(crc32(sample.id.encode()))
        return seen_diameter(sample.labels, self.protocol.habits, generator)

    def _fine_tune(
        self, arm: Arm, user: int, corrections: Sequence[Corrections]
    ) -> tuple[_Model, dict[str, Any]]:
        """Fine-tune the root and score what comes out."""
        options = FineTuneOptions(**{"judge": False, "seed": user, **arm.options})
        steps, budget = self.protocol.steps, self.protocol.budget
        if steps is None:
            budget = (budget or _BUDGET) * arm.share
        else:
            steps = max(1, round(steps * arm.share))
        started, worked = perf_counter(), process_time()
        tuned = finetune(
            self.root.spec,
            self.root.network if arm.start == "root" else self._new_network(user),
            corrections,
            budget=budget,
            steps=steps,
            replay=self.replay if options.replay_share else None,
            options=options,
            device=self.root.device,
            cancel=self.cancel,
        )
        row = {
            "steps": tuned.steps,
            "seconds": perf_counter() - started,
            "cpu_seconds": process_time() - worked,
            "root_share": tuned.root_share,
        }
        model = replace(self.root, spec=tuned.spec, network=tuned.network)
        return model, {**row, **self._scores(model)}

    def _new_network(self, user: int) -> Network:
        return build_network(self.root.spec, generator=torch.Generator().manual_seed(user))

    def _scores(self, model: _Model) -> dict[str, list[float]]:
        """Score of every image of target and source."""
        parts = {"target": self.domain.target, "source": self.domain.source}
        return {name: [self._score(model, sample) for sample in part] for name, part in parts.items()}

    def _score(self, model: _Model, sample: Sample) -> float:
        check_cancelled(self.cancel)
        found = model.segment(sample, self._diameter(sample), self.cancel)
        if self.instances:
            return score_instances(found, sample.labels).f1_50
        spacing = sample.image.spacing or (1.0,) * sample.labels.ndim
        classes = score_classes(found, sample.labels, model.spec.labels, spacing)
        return float(np.mean([scores.dice for scores in classes.values()]))

    def _key(self) -> dict[str, Any]:
        """What a kept run must have been made with."""
        kept = self.protocol.model_dump(mode="json", exclude={"arms", "users", "title"})
        return {"protocol": kept}

    def _kept(self, path: Path) -> dict[str, Any] | None:
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainingError(f"{path} is damaged: {error}.", "Remove it to run it again.") from error
        if found.get("key") != json.loads(json.dumps(self._key())):
            raise TrainingError(f"{path} is of another protocol.", "Choose another --output.")
        return found


def _save_corrections(path: Path, gathered: Sequence[tuple[int, NDArray[np.int32], Corrected]]) -> None:
    arrays: dict[str, NDArray[Any]] = {"images": np.array([index for index, _, _ in gathered])}
    for i, (_, prediction, corrected) in enumerate(gathered):
        arrays[f"prediction_{i}"], arrays[f"labels_{i}"] = prediction, corrected.labels
        arrays[f"counts_{i}"] = np.array([corrected.corrections, corrected.wrong])
        if corrected.accepted is not None:
            arrays[f"accepted_{i}"] = corrected.accepted
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _load_corrections(path: Path) -> list[tuple[int, NDArray[np.int32], Corrected]]:
    with np.load(path, allow_pickle=False) as arrays:
        return [
            (
                index,
                arrays[f"prediction_{i}"],
                Corrected(
                    arrays[f"labels_{i}"],
                    arrays.get(f"accepted_{i}"),
                    *arrays[f"counts_{i}"].tolist(),
                ),
            )
            for i, index in enumerate(arrays["images"].tolist())
        ]
