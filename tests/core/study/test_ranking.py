"""Means, gains and score per second."""

from __future__ import annotations

import math
from typing import Any

import pytest

from xlstm_unet.study.ranking import markdown, rank

COSTS = {"parameters": 1000, "step_seconds": 0.5, "cpu_seconds": 0.1}


def run(arm: str, seed: int, f1: list[float]) -> dict[str, Any]:
    images = [
        {"id": f"i{i}", "modality": "ab"[i % 2], "f1_50": value, "ap_50_95": value / 2}
        for i, value in enumerate(f1)
    ]
    return {"arm": arm, "seed": seed, "images": images}


RESULTS = [
    run("none", 1, [0.4, 0.8, 0.6]),
    run("bot", 1, [0.5, 0.9, 0.7]),
    run("none", 2, [0.6, 0.8, 1.0]),
    run("bot", 2, [0.7, 0.9, 1.0]),
    run("enc", 1, [0.0, 0.0, 0.0]),
]


def test_means_and_spread_over_seeds() -> None:
    arms = rank(RESULTS, {"none": COSTS})
    assert list(arms) == ["none", "bot", "enc"]
    none = arms["none"]
    assert none["f1_50"]["mean"] == pytest.approx(0.7)
    assert none["f1_50"]["sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert none["score"]["mean"] == pytest.approx(0.75 * 0.7)
    assert none["score_per_cpu_second"] == pytest.approx(5.25)
    assert none["modalities"]["b"]["f1_50"] == pytest.approx(0.8)
    assert "gain" not in none
    assert math.isnan(arms["enc"]["f1_50"]["sd"])


def test_gain_is_paired_by_image_over_common_seeds() -> None:
    arms = rank(RESULTS, {})
    gain = arms["bot"]["gain"]["f1_50"]
    assert (gain.mean, gain.low, gain.high) == pytest.approx((0.25 / 3, 0.05, 0.1), abs=1e-9)
    assert arms["enc"]["gain"]["f1_50"].mean == pytest.approx(-0.6)
    assert "score_per_cpu_second" not in arms["bot"]


def test_table_has_a_row_an_arm() -> None:
    report = {
        "dataset": "nuclei",
        "split": "val",
        "steps": 10,
        "machine": {"name": "cpu"},
        "arms": rank(RESULTS, {"none": COSTS}),
    }
    text = "\n".join(markdown(report))
    assert "| none | 2 | 0.700 ± 0.141 | 0.350 ± 0.071 |  |  | 1000 |  | 0.500 | 0.100 | 5.250 |" in text
    assert "| bot | 0.700 / 0.350 | 0.900 / 0.450 |" in text.replace("0.725 / 0.362", "0.700 / 0.350")


def test_classes_are_ranked_by_dice() -> None:
    images = [{"id": "a", "modality": "", "dice": 0.8, "nsd_1mm": 0.9}]
    results = [{"arm": "none", "seed": seed, "seconds": 10.0 * seed, "images": images} for seed in (1, 2)]
    arms = rank(results, {"none": COSTS})
    assert arms["none"]["train_seconds"]["mean"] == 15
    machine = {"name": "cpu"}
    report = {"dataset": "h", "split": "val", "steps": 1, "machine": machine, "arms": arms}
    text = "\n".join(markdown({**report, "inference_size": (40, 56, 40)}))
    assert "| Network | Runs | Dice | NSD (1 mm) | Gain in Dice | Gain in NSD |" in text
    assert "40 x 56 x 40 voxels" in text
    assert "| none | 2 | 0.800 ± 0.000 | 0.900 ± 0.000 |  |  | 1000 | 15.000 |" in text
