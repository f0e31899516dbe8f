"""Crops of background alone, and crops normalised by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.images import fit_normalisation
from xlstm_unet.learn import Dataset, TrainConfig
from xlstm_unet.learn.background import background_window, fold_into_windows, normalise_alone
from xlstm_unet.learn.bank import Bank
from xlstm_unet.learn.optimise import BatchSource
from xlstm_unet.spec import Normalisation


@pytest.mark.parametrize("shape", [(70, 90), (40, 50, 60)])
def test_window_holds_no_object_and_keeps_away_from_them(shape: tuple[int, ...]) -> None:
    labels = np.zeros(shape, np.int32)
    labels[(slice(5, 12),) * len(shape)] = 3
    *middle, half = background_window(labels)
    assert half >= 12
    inside = tuple(slice(int(m - half), int(m + half) + 1) for m in middle)
    assert all(s.start >= 0 and s.stop <= n for s, n in zip(inside, shape, strict=True))
    near = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in inside)
    assert not labels[near].any()


def test_no_room_gives_no_window() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[::12, ::12] = 1
    assert background_window(labels)[-1] == 0


def test_folding_stays_in_the_window_and_keeps_what_lies_there() -> None:
    grid = torch.stack(torch.meshgrid(torch.arange(-40.0, 80), torch.arange(0.0, 50), indexing="ij"), -1)
    windows = torch.tensor([[20.0, 30.0, 10.0], [0.0, 0.0, 0.0]])
    folded = fold_into_windows(grid.expand(2, *grid.shape), windows)
    assert folded[0].amin((0, 1)).tolist() == [10, 20]
    assert folded[0].amax((0, 1)).tolist() == [30, 40]
    kept = ((grid - windows[0, :2]).abs() <= 10).all(-1)
    assert torch.equal(folded[0][kept], grid[kept])
    assert torch.equal(folded[1], grid)


def test_normalised_alone_as_an_image_of_its_own() -> None:
    values = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.3
    alone = normalise_alone(values, torch.tensor([True, False]), 1.0, 99.8)
    expected = fit_normalisation(values[0].numpy(), [Normalisation(scheme="percentile")])(values[0].numpy())
    np.testing.assert_allclose(alone[0].numpy(), expected, atol=1e-4)
    assert torch.equal(alone[1], values[1])


def test_background_crops_have_no_object_and_full_contrast(
    nuclei: Dataset, tiny_fields: dict[str, Any]
) -> None:
    neutral = dict.fromkeys(
        ("invert", "gray", "colour", "tint", "gamma", "contrast", "shading", "blur", "coarse", "noise"), 0.0
    )
    fields = {**tiny_fields, "intensity": neutral}
    fields["sampling"] = {"batch": 8, "background": 1.0, "empty": 0.0, "foreground": 1.0}
    config = TrainConfig.model_validate(fields)
    samples = [sample for sample in nuclei.samples if background_window(sample.labels)[-1]]
    assert len(samples) >= 3
    bank = Bank(samples, config.model, torch.device("cpu"))
    image, targets = BatchSource(bank, [s.modality for s in samples], config).draw()
    assert not targets.classes.any()
    spread = image.flatten(1).quantile(0.99, dim=1) - image.flatten(1).quantile(0.02, dim=1)
    assert (spread > 0.5).all(), "background of little contrast is stretched as an image of its own would be"
