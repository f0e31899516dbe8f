"""The commands that run many measurements in one go."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from xlstm_kernels.suite import LATE, gpu_suite, run_step
from xlstm_kernels.targets import TARGETS, cpu_ratios, cpu_targets, verdicts

ROOT = Path(__file__).parents[2]


def test_the_suite_says_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert gpu_suite(tmp_path / "report.json") == 2
    assert "runs from the root of a checkout" in capsys.readouterr().err
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu_suite(tmp_path / "report.json") == 2
    assert "there is no GPU here; --rehearse" in capsys.readouterr().err
    assert not (tmp_path / "report.json").exists()


def test_ratios_are_those_of_the_targets() -> None:
    cells = [
        {"name": "ours", "shape": [1, 256, 4, 64], "forward_ms": 2.0, "both_ms": 4.0},
        {"name": "dense", "shape": [1, 256, 4, 64], "forward_ms": 5.0, "both_error": "no memory"},
        {"name": "sdpa", "shape": [1, 256, 4, 64], "forward_ms": 1.0, "both_ms": 3.0},
    ]
    layer = {"features": 128, "sides": [8, 8, 8], "layer_ms": 9.0, "conv_ms": 3.0}
    layers = [layer | {"layer_both_ms": 10.0, "conv_both_ms": 8.0}]
    case = {"precision": "float32", "threads": 1}
    networks = [
        case | {"case": "enc-512", "cpu_s": 11.0, "train_cpu_s": 15.0},
        case | {"case": "enc-512-none", "cpu_s": 10.0, "train_cpu_s": 10.0},
    ]
    volumes = [case | {"case": "dense-3d", "cpu_s": 1.0}]
    steps = {"cells": cells, "layers": layers, "networks": networks, "volumes": volumes}
    found = cpu_ratios({name: {"rows": rows} for name, rows in steps.items()})
    assert found == {
        "dense form to ours, forward, 256 tokens": 2.5,
        "layer to convolution, 3D, 128 features": 3.0,
        "layer to convolution, 3D, 128 features, with backward": 1.25,
        "enc-512 to the same without ViL, float32": 1.1,
        "enc-512 to the same without ViL, float32, training step": 1.5,
    }
    assert set(found) & set(TARGETS) == {
        name for name in found if "backward" not in name and "step" not in name
    }
    assert [line.split("  ")[-1] for line in verdicts(found)] == [
        "at least 5: MISSED", "at most 1.5: MISSED", "no target", "at most 1.15: met", "no target",
    ]  # fmt: skip
    assert cpu_ratios({"cells": {"exit_code": 1}}) == {}


def test_a_step_is_stopped_with_all_that_it_started(tmp_path: Path) -> None:
    beside = f"import time; time.sleep(3); open({str(tmp_path / 'late')!r}, 'w')"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {beside!r}])"
    start = time.monotonic()
    step = run_step("sleeping", [sys.executable, "-c", code], {}, start + 2)
    assert time.monotonic() - start < 3
    assert step["exit_code"] == LATE
    assert step["output"].endswith("stopped: the time is up\n")
    time.sleep(3.5)
    assert not (tmp_path / "late").exists()


@pytest.mark.slow
def test_the_targets_of_a_cpu_are_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cpu_targets(None, rehearse=True) == 2
    assert cpu_targets(tmp_path / "report.json", rehearse=True) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rehearsal"] is True
    for threads in ("1", "2"):
        found = report["threads"][threads]
        assert found["cells"]["threads"] == int(threads)
        assert {len(row["sides"]) for row in found["layers"]["rows"]} == {2, 3}
        assert all(
            row["cpu_s"] > 0 and row["peak_mb"] > 0
            for row in (*found["networks"]["rows"], *found["volumes"]["rows"])
        )
        assert all("train_cpu_s" in row for row in found["networks"]["rows"])
        assert "layer to convolution, 3D, 8 features" in found["ratios"]


@pytest.mark.slow
def test_the_whole_suite_is_rehearsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.chdir(ROOT)
    assert gpu_suite(tmp_path / "report.json", rehearse=True) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["rehearsal"] is True
    assert set(report["steps"]) == {"tests", "odd_shapes", "cells", "layers", "networks"}
    rows = report["steps"]["cells"]["figures"]["rows"]
    assert {row["name"] for row in rows} == {"ours", "dense", "sdpa"}
    assert "triton" in report["steps"]["cells"]["figures"]["backend"]
    assert [row["case"] for row in report["steps"]["networks"]["figures"]["rows"]][::2] == [
        "tiny-none",
        "tiny-dense",
    ]
