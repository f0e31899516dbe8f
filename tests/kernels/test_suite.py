"""The commands that run many measurements in one go."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from xlstm_kernels.suite import cpu_ratios, cpu_targets, gpu_suite

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
    layers = [{"features": 128, "sides": [8, 8, 8], "layer_ms": 9.0, "conv_ms": 3.0}]
    networks = [
        {"case": "enc-3d", "precision": "float32", "threads": 1, "cpu_s": 11.0},
        {"case": "enc-3d-none", "precision": "float32", "threads": 1, "cpu_s": 10.0},
        {"case": "small-dense", "precision": "float32", "threads": 1, "cpu_s": 1.0},
    ]
    found = cpu_ratios({"cells": {"rows": cells}, "layers": {"rows": layers}, "networks": {"rows": networks}})
    assert found == {
        "dense form to ours, forward, 256 tokens": 2.5,
        "layer to convolution, 3D, 128 features": 3.0,
        "enc-3d to the same without ViL, float32": 1.1,
    }


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
        assert all(row["cpu_s"] > 0 and row["peak_mb"] > 0 for row in found["networks"]["rows"])
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
