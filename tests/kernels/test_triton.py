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
from xlstm_kernels import mlstm, triton_launch

def poisoned(*shape, empty=torch.empty, **options):
    x = empty(*shape, **options)
    return x.fill_(torch.nan) if x.is_floating_point() else x

torch.empty = poisoned  # an element that nobody writes shows
cases = torch.load(sys.argv[1], weights_only=True)
out = []
for case in cases:
    triton_launch.quadratic = lambda *_: case["quadratic"]
    triton_launch.PROGRAMS = case["programs"]
    inputs = [case[name].requires_grad_() for name in "qkvif"]
    h = mlstm(*inputs, case["reverse"], backend="triton")
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


def prepared(case: Case, *, quadratic: bool, reverse: bool = False, programs: int = 512) -> dict[str, Any]:
    """Case for `SCRIPT` in float32: which form runs, and for how many programs a sequence is cut."""
    single = {name: x.float() for name, x in case.items()}
    return single | {"quadratic": quadratic, "reverse": reverse, "programs": programs}


def dense(case: dict[str, Any], dtype: torch.dtype) -> list[Tensor]:
    from xlstm_kernels import mlstm

    inputs = [case[name].detach().to(dtype).requires_grad_() for name in NAMES]
    h = mlstm(*inputs, case["reverse"], backend="dense")
    return [h.detach(), *torch.autograd.grad(h, inputs, case["dh"].to(dtype))]


def check(
    cases: list[dict[str, Any]],
    every: list[list[Tensor]],
    relative: Callable[[Tensor, Tensor], float],
    output: float,
    gradient: float,
) -> None:
    for case, found in zip(cases, every, strict=True):
        truth, plain = dense(case, torch.float64), dense(case, torch.float32)
        for name, x, y, d in zip(("h", *NAMES), found, truth, plain, strict=True):
            # a small head can have a tiny normaliser: then the dense form is the measure
            bound = max(output if name == "h" else gradient, 2 * relative(d, y))
            assert relative(x, y) <= bound, (name, case["q"].shape)


def test_interpreted_chunkwise_kernels_are_exact(
    draw: Callable[..., Case], relative: Callable[[Tensor, Tensor], float], tmp_path: Path
) -> None:
    drawn = [
        draw(1, 1, 1, 8), draw(2, 17, 2, 16), draw(1, 65, 1, 25), draw(1, 150, 1, 16), draw(1, 40, 1, 40),
        draw(1, 70, 1, 16, 20.0), draw(1, 70, 1, 16, 80.0, 100.0), draw(1, 70, 1, 16, 1.0, 30.0),
        draw(1, 70, 2, 4),
    ]  # fmt: skip
    drawn[-1]["f"][:, 33] = -torch.inf
    drawn[3]["f"][:, 70] = -torch.inf  # several segments: the states of the next must fit the last token's
    cases = [
        prepared(case, quadratic=False, reverse=n % 2 == 1, programs=1 if n % 3 == 1 else 512)
        for n, case in enumerate(drawn)
    ]
    check(cases, interpret(cases, tmp_path), relative, 5e-6, 3e-5)


def test_interpreted_quadratic_kernels_are_exact(
    draw: Callable[..., Case], relative: Callable[[Tensor, Tensor], float], tmp_path: Path
) -> None:
    drawn = [
        draw(1, 1, 1, 8), draw(1, 15, 1, 25), draw(2, 17, 2, 30), draw(2, 25, 1, 8), draw(1, 60, 1, 30),
        draw(1, 100, 1, 25), draw(1, 18, 1, 160), draw(1, 70, 1, 16, 20.0), draw(1, 70, 1, 16, 80.0, 100.0),
        draw(1, 70, 1, 16, 1.0, 30.0), draw(1, 70, 1, 16, 20.0, 30.0), draw(1, 40, 2, 8),
    ]  # fmt: skip
    drawn[4]["f"][:, 33] = drawn[5]["f"][:, 64] = -torch.inf
    drawn[-1]["i"].fill_(-120.0)  # exp(-m) overflows: h is zero, its gradients are below 1e-50
    cases = [prepared(case, quadratic=True, reverse=n % 2 == 1) for n, case in enumerate(drawn)]
    *every, overflown = interpret(cases, tmp_path)
    check(cases[:-1], every, relative, 2e-6, 2e-5)
    assert all(not x.any() for x in overflown)


@pytest.mark.parametrize(
    ("dtype", "output", "gradient"), [(torch.bfloat16, 8e-3, 2e-2), (torch.float16, 1e-3, 4e-3)]
)
def test_interpreted_kernels_take_16_bit(
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
    dtype: torch.dtype,
    output: float,
    gradient: float,
) -> None:
    case = draw(1, 60, 1, 25)
    low = {name: case[name].to(dtype) for name in ("q", "k", "v", "dh")}
    cases = [prepared(case, quadratic=quadratic) | low for quadratic in (True, False)]
    check(cases, interpret(cases, tmp_path), relative, output, gradient)


@pytest.mark.parametrize("quadratic", [True, False])
def test_interpreted_kernels_repeat_reverse_and_stride(
    draw: Callable[..., Case], tmp_path: Path, quadratic: bool
) -> None:
    """To the bit: two runs, tokens in other strides, and reverse against flip, run, flip."""
    case = draw(1, 40, 2, 8)
    strided = {name: x.transpose(0, 1).contiguous().transpose(0, 1) for name, x in case.items()}
    turned = {name: x.flip(1) for name, x in case.items()}
    one, again, other, flipped = interpret(
        [
            *(prepared(x, quadratic=quadratic, reverse=True) for x in (case, case, strided)),
            prepared(turned, quadratic=quadratic),
        ],
        tmp_path,
    )
    for w, x, y, z in zip(one, again, other, flipped, strict=True):
        assert torch.equal(w, x)
        assert torch.equal(w, y)
        if w.ndim == 4:  # the gradients of the gates are finished in torch
            assert torch.equal(w, z.flip(1))


def test_interpreted_forms_agree(
    draw: Callable[..., Case], relative: Callable[[Tensor, Tensor], float], tmp_path: Path
) -> None:
    cases = [draw(1, 50, 1, 16), draw(1, 50, 1, 16, 20.0, 30.0)]
    cases[1]["f"][:, 20] = -torch.inf
    every = interpret([prepared(c, quadratic=form) for c in cases for form in (True, False)], tmp_path)
    for one, other in ((every[0], every[1]), (every[2], every[3])):
        for name, x, y in zip(("h", *NAMES), one, other, strict=True):
            assert relative(x, y) <= (2e-6 if name == "h" else 2e-5), name


SUMS_SCRIPT = """
import sys, torch
from xlstm_kernels import triton_launch
i, f = torch.load(sys.argv[1], weights_only=True)
torch.save([list(triton_launch.scan_levels(i, f, reverse)) for reverse in (False, True)], sys.argv[2])
"""


def test_sums_of_gates_keep_their_digits(tmp_path: Path) -> None:
    """A thousand strong gates, whose logarithm is the gate itself: a sum of 30000 is off by 1e-7 at most."""
    f = -20.0 - 20.0 * torch.rand(1, 1000, 1, generator=torch.Generator().manual_seed(0))
    f[:, 500] = -torch.inf
    steps = f.double().clamp_min(-1e4)
    for (_, whole, part), reverse in zip(
        interpret([torch.zeros_like(f), f], tmp_path, SUMS_SCRIPT), (False, True), strict=True
    ):
        truth = steps.flip(1).cumsum(1).flip(1) if reverse else steps.cumsum(1)
        assert torch.equal(whole, whole.round())
        assert (whole.double() + part.double() - truth).abs().max() <= 1e-7


def test_which_form_runs_is_a_matter_of_shape() -> None:
    from xlstm_kernels.triton_launch import quadratic

    shapes = [(1, 1), (256, 8), (257, 8), (512, 128), (513, 128), (840, 210), (1025, 256), (1 << 21, 16)]
    assert [quadratic(*shape) for shape in shapes] == [True, True, False, True, False, True, False, False]


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
