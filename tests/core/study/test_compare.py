"""Comparing networks: runs that are kept, resumed and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xlstm_unet.errors import CancelledError, TrainingError
from xlstm_unet.learn import TrainConfig
from xlstm_unet.progress import Progress
from xlstm_unet.study.compare import compare


def test_runs_are_made_ranked_and_kept(tiny: TrainConfig, data_set_folder: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []

    def start() -> dict:
        return compare(
            tiny,
            data_set_folder,
            tmp_path,
            arms=["none", "plain"],
            seeds=[1, 2],
            steps=3,
            device="cpu",
            on_progress=seen.append,
        )

    report = start()
    assert [step.stage for step in seen] == ["none, seed 1", "plain, seed 1", "none, seed 2", "plain, seed 2"]
    assert report["arms"]["plain"]["runs"] == 2
    assert report["arms"]["plain"]["cpu_seconds"] > 0
    trained = [(run["arm"], json.loads(run["config"])["seed"]) for run in report["runs"]]
    assert trained == [("none", 1), ("plain", 1), ("none", 2), ("plain", 2)]
    files = {path.name for path in (tmp_path / "runs" / "plain-2").iterdir()}
    assert "result.json" in files
    assert not {name for name in files if name.endswith(".pt")}
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    again = start()
    assert again["runs"] == json.loads((tmp_path / "compare.json").read_text())["runs"]
    assert {path: path.stat().st_mtime_ns for path in times} == times

    with pytest.raises(TrainingError, match="none-1"):
        compare(tiny, data_set_folder, tmp_path, arms=["none"], seeds=[1], steps=4, device="cpu")


def test_cancelled_run_goes_on_from_its_checkpoint(
    tiny: TrainConfig, data_set_folder: Path, tmp_path: Path
) -> None:
    asked = iter(range(10_000))
    run = tmp_path / "runs" / "bot-1"
    with pytest.raises(CancelledError):
        compare(
            tiny,
            data_set_folder,
            tmp_path,
            arms=["bot"],
            seeds=[1],
            steps=12,
            device="cpu",
            cancel=lambda: (run / "log.jsonl").exists() and next(asked) > 3,
        )
    assert (run / "checkpoint.pt").exists()
    assert not (run / "result.json").exists()
    compare(
        tiny, data_set_folder, tmp_path, arms=["bot"], seeds=[1], steps=12, device="cpu", keep_weights=True
    )
    assert (run / "result.json").exists()
    assert (run / "best.pt").exists()
    assert not (run / "checkpoint.pt").exists()


@pytest.mark.slow
def test_processes_give_what_one_process_gives(
    tiny: TrainConfig, data_set_folder: Path, tmp_path: Path
) -> None:
    reports = [
        compare(
            tiny,
            data_set_folder,
            tmp_path / str(jobs),
            arms=["none", "bot"],
            seeds=[1],
            steps=3,
            jobs=jobs,
            device="cpu",
        )
        for jobs in (1, 2)
    ]
    images = [[(run["arm"], run["images"]) for run in report["runs"]] for report in reports]
    assert images[0] == images[1]
