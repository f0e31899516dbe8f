"""Comparing networks: every arm trained from every seed for the same number of steps, then scored."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from xlstm_unet.errors import TrainingError
from xlstm_unet.learn import Dataset, Sample, TrainConfig, open_dataset, train
from xlstm_unet.learn.checkpoint import BEST, CHECKPOINT
from xlstm_unet.nets import best_device, build_network, count_parameters
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment import Segmenter
from xlstm_unet.study.arms import Arm, make_arm, run_config
from xlstm_unet.study.class_accuracy import score_sample
from xlstm_unet.study.ranking import markdown, rank
from xlstm_unet.study.report import machine, write_json, write_text
from xlstm_unet.study.scoring import METRICS, model_method, score_method, some_samples
from xlstm_unet.study.timing import cpu_inference_seconds, inference_size, training_step_seconds

RESULT = "result.json"


@dataclass(frozen=True)
class Run:
    """One training of one arm.

    Parameters
    ----------
    arm
        What is trained; its configuration has this run's seed and steps.
    dataset
        Folder of the data set.
    split
        What is scored at the end.
    folder
        Folder of the run.
    device
        Where it runs.
    keep_weights
        Whether the best weights stay in the folder.
    """

    arm: Arm
    dataset: Path
    split: str
    folder: Path
    device: str
    keep_weights: bool

    @property
    def result(self) -> dict[str, Any] | None:
        """What a finished run left; None where it is not finished."""
        path = self.folder / RESULT
        if not path.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TrainingError(
                f"{path} is damaged: {error}.", "Remove its folder to run it again."
            ) from error
        if found.get("config") != self.arm.config.model_dump_json() or found.get("split") != self.split:
            raise TrainingError(
                f"{self.folder} holds a run of another configuration or split.", "Choose another --output."
            )
        return found


def compare(
    base: TrainConfig,
    dataset: Path,
    folder: Path,
    *,
    arms: Sequence[str],
    seeds: Sequence[int],
    steps: int,
    split: str = "val",
    jobs: int = 1,
    threads: int = 1,
    device: str = "auto",
    keep_weights: bool = False,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Train arms from seeds, score them, and write ``compare.json`` and ``compare.md``.

    Finished runs are kept in ``folder/runs``, and unfinished ones go on from their checkpoints, when the same
    comparison is started again; the report is written anew after every run.

    Parameters
    ----------
    base
        Configuration that the arms vary.
    dataset
        Folder of the data set.
    folder
        Where runs and report go.
    arms
        Names of arms or paths of configurations, see `make_arm`; gains are counted from the first.
    seeds
        One run an arm and seed.
    steps
        Training steps of every run.
    split
        What is scored.
    jobs
        Runs at a time, each in a process of its own.
    threads
        Threads of each run.
    device
        Where runs train; the speed of inference is always measured on the CPU.
    keep_weights
        Keep the weights of the runs (``best.pt``).
    on_progress, cancel
        Called for every run; a cancelled run leaves a checkpoint.

    Raises
    ------
    ConfigError, DatasetError, TrainingError, DeviceError
        If an arm, the data, or a kept run does not fit.
    CancelledError
        If ``cancel`` says so.
    """
    chosen = [make_arm(name, base) for name in arms]
    runs = [
        Run(
            arm=Arm(arm.name, run_config(arm.config, steps=steps, seed=seed), arm.network_type),
            dataset=dataset,
            split=split,
            folder=folder / "runs" / f"{arm.name}-{seed}",
            device=device,
            keep_weights=keep_weights,
        )
        for seed in seeds
        for arm in chosen
    ]
    report: dict[str, Any] = {
        "dataset": dataset.name,
        "split": split,
        "steps": steps,
        "seeds": list(seeds),
        "machine": machine(best_device(device)),
        "inference_size": inference_size(base.model),
        "costs": {},
    }
    for done, result in enumerate(_results(runs, jobs, threads, cancel), start=1):
        if on_progress is not None:
            on_progress(Progress(f"{result['arm']}, seed {result['seed']}", done, len(runs)))
        _write(folder, report, runs)
    for arm in chosen:
        check_cancelled(cancel)
        report["costs"][arm.name] = _costs(arm, best_device(device))
    return _write(folder, report, runs)


def _write(folder: Path, report: dict[str, Any], runs: Sequence[Run]) -> dict[str, Any]:
    results = [result for run in runs if (result := run.result) is not None]
    whole = {**report, "arms": rank(results, report["costs"]), "runs": results}
    write_json(folder / "compare.json", whole)
    write_text(folder / "compare.md", *markdown(whole))
    return whole


def _costs(arm: Arm, device: torch.device) -> dict[str, float]:
    network = build_network(arm.config.model, network_type=arm.network_type)
    return {
        "parameters": count_parameters(network),
        "step_seconds": training_step_seconds(arm, device),
        "cpu_seconds": cpu_inference_seconds(arm),
    }


def _results(runs: Sequence[Run], jobs: int, threads: int, cancel: Cancel | None) -> Iterator[dict[str, Any]]:
    """Yield the results of all runs: finished ones first, the others as they end."""
    finished = {run.folder: result for run in runs if (result := run.result) is not None}
    yield from finished.values()
    open_runs = [run for run in runs if run.folder not in finished]
    if jobs == 1 or len(open_runs) < 2:
        with _limited(threads):
            for run in open_runs:
                yield finish(run, cancel=cancel)
        return
    # Fresh processes: CUDA cannot be used in forked ones.
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(
        min(jobs, len(open_runs)), context, initializer=_start_process, initargs=(stop, threads)
    ) as pool:
        waiting = {pool.submit(_finish_in_process, run) for run in open_runs}
        try:
            while waiting:
                try:
                    done = next(as_completed(waiting, timeout=0.2))
                except TimeoutError:
                    check_cancelled(cancel)
                    continue
                waiting.remove(done)
                yield done.result()
        except BaseException:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise


_stopped: Cancel | None = None


def _start_process(stop: Any, threads: int) -> None:
    global _stopped
    _stopped = stop.is_set
    torch.set_num_threads(threads)


def _finish_in_process(run: Run) -> dict[str, Any]:
    return finish(run, cancel=_stopped)


def finish(run: Run, *, cancel: Cancel | None = None) -> dict[str, Any]:
    """Train one arm to its end, from its checkpoint if it has one, score it, and keep the result."""
    config = run.arm.config
    dataset = _dataset(run.dataset, run.split, config.model.channel_names)
    samples = some_samples(dataset, run.split)
    trained = train(
        config,
        dataset,
        run.folder,
        device=run.device,
        resume=(run.folder / CHECKPOINT).exists(),
        network_type=run.arm.network_type,
        cancel=cancel,
    )
    segmenter = Segmenter(trained.spec, trained.network, device=run.device)
    result = {
        "arm": run.arm.name,
        "seed": config.seed,
        "split": run.split,
        "config": config.model_dump_json(),
        "seconds": trained.seconds,
        "decoding": trained.spec.decoding.model_dump(),
        "images": _scores(segmenter, samples, cancel),
    }
    write_json(run.folder / RESULT, result)
    (run.folder / CHECKPOINT).unlink()
    if not run.keep_weights:
        (run.folder / BEST).unlink()
    return result


def _scores(segmenter: Segmenter, samples: Sequence[Sample], cancel: Cancel | None) -> list[dict[str, Any]]:
    """Scores of each image: of objects, or Dice and surface Dice averaged over the labels."""
    if segmenter.spec.task == "instances":
        rows = score_method(model_method(segmenter, diameter="none", cancel=cancel), samples, cancel=cancel)
        found = [{metric: row.scores[metric] for metric in METRICS} for row in rows]
    else:
        found = [
            {metric: fmean(one[metric] for one in scores.values()) for metric in ("dice", "nsd_1mm")}
            for scores in (score_sample(segmenter, sample, cancel=cancel).scores for sample in samples)
        ]
    return [
        {"id": sample.id, "modality": sample.modality, **scores}
        for sample, scores in zip(samples, found, strict=True)
    ]


@lru_cache(maxsize=1)
def _dataset(folder: Path, split: str, channels: tuple[str, ...]) -> Dataset:
    return open_dataset(folder, splits={"train", "val", split}, channels=channels)


@contextmanager
def _limited(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
