"""Training from end to end, on tiny networks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.errors import CancelledError, DatasetError, TrainingError
from xlstm_unet.learn import Dataset, TrainConfig, TrainEvent, open_dataset, train
from xlstm_unet.learn.losses import Targets
from xlstm_unet.learn.optimise import Average, BatchSource

SCRIPT = Path(__file__).with_name("train_until_killed.py")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("dimension", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_and_resumed_equals_unbroken(
    dimension: int,
    pair_folder: Path,
    raw_folder: Path,
    tiny: TrainConfig,
    tiny_volume_fields: dict[str, Any],
    tmp_path: Path,
) -> None:
    folder = pair_folder if dimension == 2 else raw_folder
    tiny = tiny if dimension == 2 else TrainConfig.model_validate(tiny_volume_fields)
    config, whole, broken = (tmp_path / name for name in ("config.json", "whole", "broken"))
    config.write_text(tiny.model_dump_json())
    command = [sys.executable, str(SCRIPT), str(folder), str(config), str(broken), "9"]
    killed = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=400)
    assert killed.returncode == -signal.SIGKILL
    data = open_dataset(folder)
    found = train(tiny, data, broken, device="cpu", resume=True).network.state_dict()
    expected = train(tiny, data, whole, device="cpu").network.state_dict()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    validations = [
        [line["validation"] for line in _log(folder) if "validation" in line] for folder in (whole, broken)
    ]
    assert validations[0] == validations[1]
    assert len(validations[0]) == 3


def _log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_a_run_leaves_a_model_a_log_and_a_curve(pair: Dataset, tiny: TrainConfig, tmp_path: Path) -> None:
    events: list[TrainEvent] = []
    result = train(tiny, pair, tmp_path / "run", device="cpu", on_event=events.append)
    assert result.steps == 12
    assert result.best_step in (4, 8, 12)
    assert 0 <= result.scores["f1_50"] <= 1
    assert 10 < (result.spec.object_diameter or 0) < 40
    assert not result.network.training
    assert [event.kind for event in events].count("validation") == 3
    assert events[0].message == pair.notes[0]
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"best.pt", "checkpoint.pt", "config.json", "log.jsonl"} <= names
    assert _log(tmp_path / "run")[-1]["result"] == result.scores
    with pytest.raises(TrainingError, match="holds a training already"):
        train(tiny, pair, tmp_path / "run", device="cpu")
    with pytest.raises(TrainingError, match="another configuration"):
        train(tiny.adapted(steps=13), pair, tmp_path / "run", device="cpu", resume=True)
    other = Dataset(pair.name, tuple(replace(sample, id=sample.id + "x") for sample in pair.samples))
    with pytest.raises(TrainingError, match="another data"):
        train(tiny, other, tmp_path / "run", device="cpu", resume=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(TrainingError, match="is damaged"):
        train(tiny, pair, tmp_path / "run", device="cpu", resume=True)


def test_classes_are_learned(pair: Dataset, tiny_fields: dict[str, Any], tmp_path: Path) -> None:
    tiny_fields["model"]["task"] = "classes"
    tiny_fields["optimiser"] = {"steps": 30, "warmup": 5, "learning_rate": 0.01, "average": 0.5}
    tiny_fields["validation"] = {"interval": 15}
    tiny_fields["sampling"]["batch"] = 4
    samples = tuple(
        replace(sample, labels=(sample.labels > 0).astype(np.int32), split=split)
        for sample in pair.samples
        for split in ("train", "val")
        if sample.id == "fluo_small"
    )
    config = TrainConfig.model_validate(tiny_fields)
    result = train(config, Dataset("masks", samples), tmp_path / "run", device="cpu")
    assert result.scores["dice"] > 0.6
    assert result.spec.object_diameter is None


def test_cancel_leaves_a_checkpoint_to_resume(pair: Dataset, tiny: TrainConfig, tmp_path: Path) -> None:
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 25

    with pytest.raises(CancelledError):
        train(tiny, pair, tmp_path / "run", device="cpu", cancel=cancel)
    assert train(tiny, pair, tmp_path / "run", device="cpu", resume=True).steps == 12


def test_a_loss_that_is_not_finite_is_named(
    pair: Dataset, tiny: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = BatchSource.draw

    def spoilt(self: BatchSource) -> tuple[torch.Tensor, Targets]:
        image, targets = draw(self)
        return image * float("nan"), targets

    monkeypatch.setattr(BatchSource, "draw", spoilt)
    with pytest.raises(TrainingError, match=r"The loss is nan .* to step \d+"):
        train(tiny, pair, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_a_time_budget_ends_the_schedule(pair: Dataset, tiny: TrainConfig, tmp_path: Path) -> None:
    config = tiny.adapted(steps=1)
    result = train(config, pair, tmp_path / "run", device="cpu", minutes=0.03)
    assert result.steps > 1
    assert 1.8 <= result.seconds < 20


@pytest.mark.parametrize("split", ["train", "val"])
def test_both_splits_are_needed(pair: Dataset, tiny: TrainConfig, tmp_path: Path, split: str) -> None:
    with pytest.raises(DatasetError, match="has no samples in split"):
        train(tiny, Dataset("part", pair.split(split)), tmp_path / "run")


def test_nothing_to_resume(pair: Dataset, tiny: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        train(tiny, pair, tmp_path / "run", device="cpu", resume=True)


def test_averaged_weights_follow_slowly_once_warm() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = Average(network, 0.9)
    torch.nn.init.ones_(network.weight)
    average.update(network, 1000)
    assert average.state_dict()["weight"].item() == pytest.approx(0.1)
    average.update(network, 1)
    assert average.state_dict()["weight"].item() == pytest.approx(1 - 0.9 / 11)
