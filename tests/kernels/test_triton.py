"""The Triton kernels in Triton's interpreter, and compiled ahead of time for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from xlstm_kernels import ViLWeights
from xlstm_kernels.layer import vil_layer_plain

pytest.importorskip("triton")

HERE = Path(__file__).parent
NAMES = ("q", "k", "v", "i", "f")
Case = dict[str, Tensor]

SCRIPT = """
import sys, torch
from xlstm_kernels import mlstm
cases = torch.load(sys.argv[1], weights_only=True)
out = []
for case in cases:
    inputs = [case[name].requires_grad_() for name in "qkvif"]
    h = mlstm(*inputs, case["reverse"].item(), backend="triton")
    out.append([h.detach(), *torch.autograd.grad(h, inputs, case["dh"])])
torch.save(out, sys.argv[2])
"""


def interpret(cases: list[Any], folder: Path, script: str = SCRIPT) -> list[list[Tensor]]:
    """Run cases in a process of its own: the interpreter is switched on before kernels are defined."""
    torch.save(cases, folder / "cases.pt")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(folder / "cases.pt"), str(folder / "out.pt")]
    subprocess.run(command, check=True, env=environment, timeout=280)
    found: list[list[Tensor]] = torch.load(folder / "out.pt", weights_only=True)
    return found


def dense(case: Case, dtype: torch.dtype) -> list[Tensor]:
    from xlstm_kernels import mlstm

    inputs = [case[name].detach().to(dtype).requires_grad_() for name in NAMES]
    h = mlstm(*inputs, bool(case["reverse"].item()), backend="dense")
    return [h.detach(), *torch.autograd.grad(h, inputs, case["dh"].to(dtype))]


def test_interpreted_kernels_are_exact(
    draw: Callable[..., Case], relative: Callable[[Tensor, Tensor], float], tmp_path: Path
) -> None:
    drawn = [
        draw(1, 1, 1, 8), draw(2, 17, 2, 16), draw(1, 65, 1, 25), draw(1, 300, 1, 16), draw(1, 40, 1, 40),
        draw(1, 70, 1, 16, 20.0), draw(1, 70, 1, 16, 80.0, 100.0), draw(1, 70, 1, 16, 1.0, 30.0),
        draw(1, 70, 2, 4),
    ]  # fmt: skip
    drawn[-1]["f"][:, 33] = -torch.inf
    drawn[3]["f"][:, 140] = -torch.inf  # several segments: the states of the next must fit the last token's
    cases = [
        {name: x.float() for name, x in case.items()} | {"reverse": torch.tensor(n % 2 == 1)}
        for n, case in enumerate(drawn)
    ]
    for case, found in zip(cases, interpret(cases, tmp_path), strict=True):
        truth, plain = dense(case, torch.float64), dense(case, torch.float32)
        for name, x, y, d in zip(("h", *NAMES), found, truth, plain, strict=True):
            # a small head can have a tiny normaliser: then the dense form is the measure
            assert relative(x, y) <= max(5e-6 if name == "h" else 3e-5, 2 * relative(d, y)), name


def test_interpreted_reverse_is_flip_run_flip(draw: Callable[..., Case], tmp_path: Path) -> None:
    case = {name: x.float() for name, x in draw(1, 83, 1, 8).items()}
    turned = {name: x.flip(1) for name, x in case.items()}
    one, other = interpret(
        [case | {"reverse": torch.tensor(True)}, turned | {"reverse": torch.tensor(False)}], tmp_path
    )
    for x, y in zip(one[:4], other[:4], strict=True):
        assert torch.equal(x, y.flip(1))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cuda:90", "cuda:80", "hip:gfx942"])
def test_kernels_compile_ahead_of_time(target: str, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "xlstm_kernels.compile_ahead", target, "--quick"]
    subprocess.run(command, check=True, env=environment, timeout=280)


LAYER_SCRIPT = """
import sys, torch
from xlstm_kernels import ViLWeights, vil_layer
cases = torch.load(sys.argv[1], weights_only=True)
out = []
for x, upstream, weights, reverse in cases:
    inputs = [x.requires_grad_(), *(part.requires_grad_() for part in weights)]
    y = vil_layer(inputs[0], ViLWeights(*inputs[1:]), reverse=reverse, backend="triton")
    out.append([y.detach(), *torch.autograd.grad(y, inputs, upstream)])
torch.save(out, sys.argv[2])
"""


def test_interpreted_layer_and_its_gradient(
    draw_layer: Callable[..., ViLWeights], relative: Callable[[Tensor, Tensor], float], tmp_path: Path
) -> None:
    """Several spans of tokens and tiles of features, heads that are no power of two, two heads, one token."""
    g = torch.Generator().manual_seed(0)
    cases, truths, plains = [], [], []
    for (batch, size, width), reverse in (((2, 37, 12), False), ((1, 34, 10), True), ((1, 1, 40), False)):
        w = draw_layer(width)
        x, upstream = torch.randn(2, batch, size, width, generator=g, dtype=torch.float64)
        for results, dtype in ((truths, torch.float64), (plains, torch.float32)):
            inputs = [part.to(dtype, copy=True).requires_grad_() for part in (x, *w)]
            y = vil_layer_plain(inputs[0], ViLWeights(*inputs[1:]), reverse, backend="dense")
            gradients = torch.autograd.grad(y, inputs, upstream.to(dtype))
            results.append([(y - inputs[0]).detach(), *gradients])
        cases.append([x.float(), upstream.float(), [part.float() for part in w], reverse])
    every = interpret(cases, tmp_path, LAYER_SCRIPT)
    for case, found, truth, plain in zip(cases, every, truths, plains, strict=True):
        found[0] -= case[0]
        for name, one, other, rough in zip(("y", "x", *ViLWeights._fields), found, truth, plain, strict=True):
            # the gradients of the gates' biases are small sums of large terms: float32 is the measure
            assert relative(one, other) <= max(3e-5, 6 * relative(rough, other)), name
