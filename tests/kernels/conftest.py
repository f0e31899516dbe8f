"""Inputs and measures shared by the tests of the kernels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from xlstm_kernels import ViLWeights

Case = dict[str, Tensor]


@pytest.fixture(scope="session")
def golden_cells() -> list[Case]:
    """Inputs, outputs and gradients of the released cell, tensors (B, S, NH, DH) and (B, S, NH)."""
    with np.load(Path(__file__).parent / "data" / "mlstm_cell.npz") as file:
        cases: dict[str, Case] = {}
        for key in file.files:
            case, name = key.split("_")
            cases.setdefault(case, {})[name] = torch.from_numpy(file[key]).transpose(1, 2)
    return list(cases.values())


@pytest.fixture(scope="session")
def relative() -> Callable[[Tensor, Tensor], float]:
    """Relative Frobenius error of a tensor against the truth; absolute where the truth is zero."""

    def error(found: Tensor, truth: Tensor) -> float:
        truth = truth.double()
        size = truth.norm().item()
        return (found.double() - truth).norm().item() / (size or 1.0)

    return error


@pytest.fixture(scope="session")
def draw() -> Callable[..., Case]:
    """Random inputs of the cell in float64 by shape; ``i_range`` and ``f_range`` make the gates extreme."""

    def inputs(
        batch: int,
        size: int,
        heads: int,
        width: int,
        i_range: float = 1.0,
        f_range: float | None = None,
        seed: int = 0,
    ) -> Case:
        g = torch.Generator().manual_seed(seed)
        case = {
            name: torch.randn(batch, size, heads, width, generator=g, dtype=torch.float64)
            for name in ("q", "k", "v", "dh")
        }
        gates = torch.randn(2, batch, size, heads, generator=g, dtype=torch.float64)
        signs = torch.randint(0, 2, gates.shape, generator=g) * 2.0 - 1.0
        case["i"] = gates[0] if i_range == 1.0 else signs[0] * i_range
        case["f"] = gates[1] + 3.0 if f_range is None else signs[1] * f_range
        return case

    return inputs


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill what `torch.empty` gives with NaN, so that an element nobody wrote shows."""
    original, original_like = torch.empty, torch.empty_like

    def poison(x: Tensor) -> Tensor:
        return x.fill_(torch.nan) if x.is_floating_point() else x

    monkeypatch.setattr(torch, "empty", lambda *args, **kwargs: poison(original(*args, **kwargs)))
    monkeypatch.setattr(torch, "empty_like", lambda *args, **kwargs: poison(original_like(*args, **kwargs)))


@pytest.fixture(scope="session")
def draw_layer() -> Callable[..., ViLWeights]:
    """Random weights of a Vision-LSTM layer by width, of the size that training leaves them in."""

    def weights(width: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> ViLWeights:
        g = torch.Generator().manual_seed(seed)
        inner, heads = 2 * width, 4 if width % 4 == 0 else 2

        def normal(*shape: int, std: float, mean: float = 0.0) -> Tensor:
            return (torch.randn(*shape, generator=g, dtype=torch.float64) * std + mean).to(dtype)

        return ViLWeights(
            norm=normal(width, std=0.1),
            proj_up=normal(2 * inner, width, std=width**-0.5),
            conv_weight=normal(inner, 1, 4, std=0.5),
            conv_bias=normal(inner, std=0.1),
            q=normal(inner // heads, heads, heads, std=0.7),
            k=normal(inner // heads, heads, heads, std=0.7),
            v=normal(inner // heads, heads, heads, std=0.7),
            igate_weight=normal(heads, 3 * inner, std=0.3 * inner**-0.5),
            igate_bias=normal(heads, std=0.1),
            fgate_weight=normal(heads, 3 * inner, std=0.3 * inner**-0.5),
            fgate_bias=normal(heads, std=1.0, mean=4.0),
            outnorm=normal(inner, std=0.1),
            skip=normal(inner, std=0.1, mean=1.0),
            proj_down=normal(width, inner, std=inner**-0.5),
        )

    return weights
