"""The mLSTM cell against its truth: golden files, numerical gradients, odd sizes, extreme gates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from xlstm_kernels import mlstm
from xlstm_kernels.ops import mlstm_torch

NAMES = ("q", "k", "v", "i", "f")
Case = dict[str, Tensor]
Relative = Callable[[Tensor, Tensor], float]

SIZES = [
    (1, 1, 4, 16), (2, 15, 1, 8), (1, 16, 2, 25), (1, 17, 2, 30), (1, 25, 4, 64), (1, 60, 4, 30),
   (2, 63, 4, 32),
    (1, 64, 1, 128), (1, 65, 2, 160), (40, 33, 4, 8), (1, 100, 4, 210), (1, 210, 4, 32), (1, 840, 2, 64),
    (1, 1000, 1, 200), (1, 257, 1, 256), (1, 97, 2, 1),
]  # fmt: skip
EXTREMES = [(20.0, None), (80.0, None), (1.0, 30.0), (1.0, 100.0), (20.0, 30.0), (80.0, 100.0)]


def run(case: Case, dtype: torch.dtype, backend: str, reverse: bool = False) -> list[Tensor]:
    inputs = [
        case[name].to(dtype if name in "qkv" else torch.promote_types(dtype, torch.float32)) for name in NAMES
    ]
    inputs = [x.detach().requires_grad_() for x in inputs]
    h = mlstm(*inputs, reverse, backend=backend)
    return [h.detach(), *torch.autograd.grad(h, inputs, case["dh"].to(dtype))]


def check(
    found: list[Tensor], truth: list[Tensor], relative: Relative, output: float, gradient: float
) -> None:
    for name, x, y in zip(("h", *NAMES), found, truth, strict=True):
        assert relative(x, y) <= (output if name == "h" else gradient), name


@pytest.mark.parametrize("backend", ["dense", "torch"])
def test_golden_float64(golden_cells: list[Case], relative: Relative, backend: str) -> None:
    for case in golden_cells:
        truth = [case["h"], *(case["d" + name] for name in NAMES)]
        double = {name: x.double() for name, x in case.items()}
        check(run(double, torch.float64, backend), truth, relative, 1e-10, 1e-10)


def test_golden_float32(golden_cells: list[Case], relative: Relative) -> None:
    for case in golden_cells:
        truth = [case["h"], *(case["d" + name] for name in NAMES)]
        dense, found = (run(case, torch.float32, backend) for backend in ("dense", "torch"))
        for x, d, y in zip(found, dense, truth, strict=True):
            assert relative(x, y) <= max(2e-5, 2 * relative(d, y))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("shape", SIZES, ids=lambda s: "x".join(map(str, s)))
def test_odd_sizes(
    draw: Callable[..., Case], relative: Relative, shape: tuple[int, ...], reverse: bool
) -> None:
    case = draw(*shape)
    truth = run(case, torch.float64, "dense", reverse)
    check(run(case, torch.float64, "torch", reverse), truth, relative, 1e-11, 1e-10)
    single = {name: x.float() for name, x in case.items()}
    rounded = run({name: x.double() for name, x in single.items()}, torch.float64, "dense", reverse)
    plain = run(single, torch.float32, "dense", reverse)
    for name, x, d, y in zip(
        ("h", *NAMES), run(single, torch.float32, "torch", reverse), plain, rounded, strict=True
    ):
        assert relative(x, y) <= max(2e-6 if name == "h" else 2e-5, 2 * relative(d, y)), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(draw: Callable[..., Case], relative: Relative, dtype: torch.dtype) -> None:
    case = draw(2, 300, 2, 32)
    case |= {name: case[name].to(dtype).double() for name in ("q", "k", "v", "dh")}
    truth = run(case, torch.float64, "dense")
    output, gradient = (8e-3, 2e-2) if dtype == torch.bfloat16 else (1e-3, 4e-3)
    found = run(case, dtype, "torch")
    assert found[0].dtype == dtype
    check(found, truth, relative, output, gradient)


@pytest.mark.parametrize(("i_range", "f_range"), EXTREMES)
def test_extreme_gates(
    draw: Callable[..., Case], relative: Relative, i_range: float, f_range: float | None
) -> None:
    case = {name: x.float() for name, x in draw(1, 200, 2, 16, i_range, f_range).items()}
    truth = run({name: x.double() for name, x in case.items()}, torch.float64, "dense")
    dense, found = run(case, torch.float32, "dense"), run(case, torch.float32, "torch")
    for name, x, d, y in zip(("h", *NAMES), found, dense, truth, strict=True):
        assert relative(x, y) <= max(2e-6 if name == "h" else 2e-5, 2 * relative(d, y)), name


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_forget_gate_of_minus_infinity_is_a_hard_reset(
    draw: Callable[..., Case], relative: Relative, reverse: bool
) -> None:
    case = draw(1, 90, 2, 8)
    case["f"][:, 40] = -torch.inf
    truth = run(case, torch.float64, "dense", reverse)
    found = run(case, torch.float64, "torch", reverse)
    check(found, truth, relative, 1e-11, 1e-10)
    assert all(x.isfinite().all() for x in found)
    parts = [slice(0, 41), slice(41, 90)] if reverse else [slice(0, 40), slice(40, 90)]
    apart = [mlstm(*(case[name][:, part] for name in NAMES), reverse) for part in parts]
    assert relative(found[0], torch.cat(apart, 1)) <= 1e-11


def test_overflowing_normaliser_gives_zero(draw: Callable[..., Case]) -> None:
    case = draw(1, 50, 2, 8)
    case["i"] = torch.full_like(case["i"], -120.0)
    h, *gradients = run(case, torch.float32, "torch")
    assert torch.equal(h, torch.zeros_like(h))
    assert all(x.isfinite().all() for x in gradients)


def test_zero_keys(draw: Callable[..., Case], relative: Relative) -> None:
    case = draw(1, 70, 2, 8)
    case["k"].zero_()
    check(run(case, torch.float64, "torch"), run(case, torch.float64, "dense"), relative, 1e-11, 1e-11)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("size", "width"), [(1, 1), (2, 3), (5, 8), (17, 3)])
def test_gradient_is_the_numerical_one(
    draw: Callable[..., Case], size: int, width: int, reverse: bool
) -> None:
    case = draw(1, size, 2, width)
    inputs = [case[name].requires_grad_() for name in NAMES]
    assert torch.autograd.gradcheck(
        lambda *x: mlstm(*x, reverse), inputs, rtol=1e-4, atol=1e-6, fast_mode=size > 2
    )


def test_reverse_is_flip_run_flip(draw: Callable[..., Case], relative: Relative) -> None:
    case = draw(2, 333, 2, 16)
    inputs = [case[name].float() for name in NAMES]
    flipped = mlstm(*(x.flip(1) for x in inputs)).flip(1)
    assert relative(mlstm(*inputs, reverse=True), flipped) <= 2e-6


def test_strides(draw: Callable[..., Case]) -> None:
    case = draw(2, 130, 4, 16)
    inputs = [case[name] for name in NAMES]
    strided = [torch.stack([x, x.flip(0)], -1)[..., 0] for x in inputs[:3]]
    strided += [x.transpose(0, 2).contiguous().transpose(0, 2) for x in inputs[3:]]
    assert torch.equal(mlstm(*inputs), mlstm(*strided))


def test_two_runs_are_equal(draw: Callable[..., Case]) -> None:
    case = draw(2, 700, 4, 16)
    for x, y in zip(run(case, torch.float32, "torch"), run(case, torch.float32, "torch"), strict=True):
        assert torch.equal(x, y)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_every_element_is_written(draw: Callable[..., Case], reverse: bool) -> None:
    for size in (5, 700):
        assert all(x.isfinite().all() for x in run(draw(2, size, 2, 25), torch.float32, "torch", reverse))


def test_opcheck(draw: Callable[..., Case]) -> None:
    case = draw(1, 40, 2, 8)
    inputs = [case[name].float().requires_grad_() for name in NAMES]
    torch.library.opcheck(mlstm_torch, (*inputs, False))
    torch.library.opcheck(mlstm_torch, (*(x.detach().transpose(0, 2) for x in inputs), True))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiles_without_graph_breaks(draw: Callable[..., Case], relative: Relative) -> None:
    case = draw(1, 70, 2, 8)
    inputs = [case[name].float().requires_grad_() for name in NAMES]
    h = torch.compile(mlstm, fullgraph=True, backend="aot_eager")(*inputs)
    gradients = torch.autograd.grad(h, inputs, case["dh"].float())
    check([h, *gradients], run(case, torch.float32, "torch"), relative, 1e-7, 1e-7)


def test_only_needed_gradients(draw: Callable[..., Case]) -> None:
    case = draw(1, 20, 1, 4)
    v = case["v"].requires_grad_()
    mlstm(case["q"], case["k"], v, case["i"], case["f"]).sum().backward()
    assert v.grad is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(3, 4, 5)}, "expected \\(B, S, NH, DH\\)"),
        ({"k": torch.zeros(1, 4, 2, 3)}, "k is"),
        ({"v": torch.zeros(1, 4, 2, 8).half()}, "v is"),
        ({"i": torch.zeros(1, 4, 3)}, "i has shape"),
    ],
)
def test_wrong_inputs(change: Case, message: str) -> None:
    inputs = {name: torch.zeros(1, 4, 2, 8) for name in "qkv"} | {name: torch.zeros(1, 4, 2) for name in "if"}
    with pytest.raises(ValueError, match=message):
        mlstm(**(inputs | change))


def test_unknown_backend() -> None:
    with pytest.raises(ValueError, match="backend 'cudnn' is not one of"):
        mlstm(*torch.zeros(3, 1, 4, 2, 8), *torch.zeros(2, 1, 4, 2), backend="cudnn")


@pytest.mark.slow
def test_two_million_tokens() -> None:
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1 << 21, 1, 4, generator=g) for _ in range(3))
    i, f = torch.randn(1, 1 << 21, 1, generator=g), torch.full((1, 1 << 21, 1), 2.0)
    h = mlstm(q, k, v, i, f)
    tail = slice((1 << 21) - 400, None)
    near = mlstm(*(x[:, tail].double() for x in (q, k, v, i, f)), backend="dense")
    assert (h[:, -64:] - near[:, -64:]).abs().max() < 1e-3
