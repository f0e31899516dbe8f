"""Scoring on validation images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xlstm_unet.learn import Dataset, TrainConfig, instance_targets, validate
from xlstm_unet.learn.config import Validation
from xlstm_unet.learn.validate import Maps, Validator
from xlstm_unet.nets import build_network
from xlstm_unet.spec import Decoding

CPU = torch.device("cpu")


def _true_maps(nuclei: Dataset) -> list[Maps]:
    maps = []
    for sample in nuclei.samples:
        classes, distance = instance_targets(sample.labels)
        maps.append(Maps((classes > 0).astype(np.float16), distance.astype(np.float16), None))
    return maps


def test_true_maps_score_high_and_settings_are_chosen_by_score(nuclei: Dataset, tiny: TrainConfig) -> None:
    validator = Validator(nuclei.samples, tiny.model, CPU, max_images=100)
    maps = _true_maps(nuclei)
    assert validator.scores(maps, Decoding())["f1_50"] > 0.97
    poor = Decoding(seed_height=0.9)
    chosen = validator.choose_decoding(maps, Validation(seed_heights=(0.15, 0.9), thresholds=(0.5,)))
    assert chosen.seed_height == 0.15
    assert validator.scores(maps, chosen)["score"] > validator.scores(maps, poor)["score"]


def test_an_untrained_network_is_scored(nuclei: Dataset, tiny: TrainConfig) -> None:
    validator = Validator(nuclei.samples, tiny.model, CPU, max_images=3)
    maps = validator.predict(build_network(tiny.model, generator=torch.Generator().manual_seed(0)))
    assert len(maps) == 3
    scores = validator.scores(maps, Decoding())
    assert 0 <= scores["score"] < 0.5


def test_large_images_are_scored_in_the_middle(
    nuclei: Dataset, tiny: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "MAX_PIXELS", 64 * 64)
    validator = Validator(nuclei.samples[:2], tiny.model, CPU, max_images=2)
    maps = validator.predict(build_network(tiny.model))
    assert all(one.foreground is not None and max(one.foreground.shape) <= 64 for one in maps)
