"""The Triton kernels in Triton's interpreter, and compiled ahead of time for GPUs that are not here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
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
Interpret = Callable[..., list[list[Tensor]]]

SERVER = """
import json, os, sys, traceback
import xlstm_kernels.triton_layer_launch
for line in sys.stdin:
    script, *sys.argv[1:] = json.loads(line)
    if (child := os.fork()) == 0:
        try:
            exec(script, {})
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""

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


@pytest.fixture(scope="module")
def interpret() -> Iterator[Interpret]:
    """Run cases in a fork of a process where the interpreter was switched on before kernels were defined."""
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment) as server:
        assert server.stdin is not None
        assert server.stdout is not None

        def run(cases: list[Any], folder: Path, script: str = SCRIPT) -> list[list[Tensor]]:
            torch.save(cases, folder / "cases.pt")
            print(
                json.dumps([script, str(folder / "cases.pt"), str(folder / "out.pt")]),
                file=server.stdin,
                flush=True,
            )
            assert server.stdout.readline() == "0\n"
            found: list[list[Tensor]] = torch.load(folder / "out.pt", weights_only=True)
            return found

        yield run
        server.stdin.close()


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
    interpret: Interpret,
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
) -> None:
    drawn = [
        draw(1, 1, 1, 8), draw(2, 17, 2, 10), draw(1, 65, 1, 25), draw(1, 150, 1, 16), draw(1, 40, 1, 48),
        draw(1, 70, 1, 16, 20.0), draw(1, 70, 1, 16, 80.0, 100.0), draw(1, 70, 1, 16, 1.0, 30.0),
        draw(1, 18, 2, 30), draw(1, 2, 1, 210), draw(1, 70, 2, 4),
    ]  # fmt: skip
    drawn[-1]["f"][:, 33] = -torch.inf
    drawn[3]["f"][:, 70] = -torch.inf  # several segments: the states of the next must fit the last token's
    cases = [
        prepared(case, quadratic=False, reverse=n % 2 == 1, programs=1 if n % 3 == 1 else 512)
        for n, case in enumerate(drawn)
    ]
    check(cases, interpret(cases, tmp_path), relative, 5e-6, 3e-5)


def test_interpreted_quadratic_kernels_are_exact(
    interpret: Interpret,
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
) -> None:
    drawn = [
        draw(1, 1, 1, 8), draw(1, 15, 1, 48), draw(2, 17, 2, 30), draw(2, 25, 1, 4), draw(1, 60, 1, 10),
        draw(1, 100, 1, 25), draw(1, 18, 1, 160), draw(1, 70, 1, 16, 20.0), draw(1, 70, 1, 16, 80.0, 100.0),
        draw(1, 70, 1, 16, 1.0, 30.0), draw(1, 70, 1, 16, 20.0, 30.0), draw(1, 3, 2, 210), draw(1, 40, 2, 8),
    ]  # fmt: skip
    drawn[4]["f"][:, 33] = drawn[5]["f"][:, 64] = -torch.inf
    drawn[-1]["i"].fill_(-120.0)  # exp(-m) overflows: h is zero, its gradients are below 1e-50
    cases = [prepared(case, quadratic=True, reverse=n % 2 == 1) for n, case in enumerate(drawn)]
    *every, overflown = interpret(cases, tmp_path)
    check(cases[:-1], every, relative, 2e-6, 2e-5)
    assert all(not x.any() for x in overflown)


@pytest.mark.slow
@pytest.mark.parametrize("quadratic", [True, False])
def test_interpreted_kernels_take_every_width(
    interpret: Interpret,
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
    quadratic: bool,
) -> None:
    """Two tokens side by side: what is read or written beyond a width is the other's, no rounding error."""
    widths = {1, 4, 8, 10, 25, 30, 200, 210} | {n + step for n in range(16, 257, 16) for step in (-1, 0, 1)}
    cases = [prepared(draw(1, 2, 1, width), quadratic=quadratic) for width in sorted(widths - {257})]
    check(cases, interpret(cases, tmp_path), relative, 1e-4, 1e-4)


def test_tokens_are_addressed_by_plain_pointers() -> None:
    """Block pointers are gone from Triton 3.9."""
    import xlstm_kernels

    for file in Path(xlstm_kernels.__file__).parent.glob("triton_*.py"):
        assert "block_ptr" not in file.read_text(), file.name


@pytest.mark.parametrize(
    ("dtype", "output", "gradient"), [(torch.bfloat16, 8e-3, 2e-2), (torch.float16, 1e-3, 4e-3)]
)
def test_interpreted_kernels_take_16_bit(
    interpret: Interpret,
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
def test_interpreted_kernels_reverse_and_stride(
    interpret: Interpret, draw: Callable[..., Case], tmp_path: Path, quadratic: bool
) -> None:
    """To the bit: tokens in other strides, and reverse against flip, run, flip."""
    case = draw(1, 40, 2, 8)
    strided = {name: x.transpose(0, 1).contiguous().transpose(0, 1) for name, x in case.items()}
    turned = {name: x.flip(1) for name, x in case.items()}
    one, other, flipped = interpret(
        [
            *(prepared(x, quadratic=quadratic, reverse=True) for x in (case, strided)),
            prepared(turned, quadratic=quadratic),
        ],
        tmp_path,
    )
    for x, y, z in zip(one, other, flipped, strict=True):
        assert torch.equal(x, y)
        if x.ndim == 4:  # the gradients of the gates are finished in torch
            assert torch.equal(x, z.flip(1))


@pytest.mark.slow
def test_interpreted_forms_agree(
    interpret: Interpret,
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
) -> None:
    cases = [draw(1, 50, 1, 16), draw(1, 50, 1, 16, 20.0, 30.0)]
    cases[1]["f"][:, 20] = -torch.inf
    every = interpret([prepared(c, quadratic=form) for c in cases for form in (True, False)], tmp_path)
    for one, other in ((every[0], every[1]), (every[2], every[3])):
        for name, x, y in zip(("h", *NAMES), one, other, strict=True):
            assert relative(x, y) <= (2e-6 if name == "h" else 2e-5), name


STRIDES_SCRIPT = """
import mmap, sys, torch
from xlstm_kernels import mlstm, triton_launch

def spread(x, axis):
    # The same values 2**31 elements apart along an axis, in memory of which only what is touched exists.
    shape = list(x.shape)
    shape[axis] = 1
    strides = list(torch.empty(shape).stride())
    strides[axis] = (1 << 31) // (x.shape[axis] - 1) + 8
    last = sum((n - 1) * stride for n, stride in zip(x.shape, strides))
    memory = mmap.mmap(-1, 4 * (last + 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    return torch.frombuffer(memory, dtype=x.dtype).as_strided(x.shape, strides).copy_(x)

out = []
for case in torch.load(sys.argv[1], weights_only=True):
    triton_launch.quadratic = lambda *_: case["quadratic"]
    x = {name: case[name] for name in ("q", "k", "v", "i", "f", "dh")}
    x |= {name: spread(part, case["axis"]) for name, part in x.items() if case["axis"] < part.ndim}
    inputs = [x[name].requires_grad_() for name in "qkvif"]
    h = mlstm(*inputs, case["reverse"], backend="triton")
    out.append([h.detach(), *torch.autograd.grad(h, inputs, x["dh"])])
torch.save(out, sys.argv[2])
"""

FAR = [((3, 5, 1, 4), 0), ((1, 33, 1, 4), 1), ((1, 5, 3, 4), 2), ((1, 5, 1, 17), 3)]
"""Shapes, and the axis along which elements lie far apart."""


@pytest.mark.parametrize("quadratic", [True, False])
def test_strides_beyond_32_bits(
    interpret: Interpret,
    draw: Callable[..., Case],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
    quadratic: bool,
) -> None:
    cases = [
        prepared(draw(*shape), quadratic=quadratic, reverse=axis == 1) | {"axis": axis} for shape, axis in FAR
    ]
    check(cases, interpret(cases, tmp_path, STRIDES_SCRIPT), relative, 5e-6, 3e-5)


LARGE_SCRIPT = """
import math, mmap, sys, torch
from triton.runtime.interpreter import InterpretedFunction
from xlstm_kernels import triton_launch

ROWS = 3  # heads that are computed, of millions
empty, each = torch.empty, InterpretedFunction.__getitem__

def sparse(*shape, dtype=torch.float32, **_):
    shape = shape[0] if isinstance(shape[0], (tuple, list)) else shape
    if math.prod(shape) < 1 << 24:
        return empty(shape, dtype=dtype).fill_(0.0)
    size = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(memory, dtype=dtype).view(shape)

def products(x, y):
    out = sparse(*x.shape[:-1])
    out[:, :, :ROWS] = (x[:, :, :ROWS] * y[:, :, :ROWS]).sum(-1)
    return out

torch.empty, torch.zeros, torch.linalg.vecdot = sparse, sparse, products
InterpretedFunction.__getitem__ = lambda kernel, grid: each(kernel, tuple(min(n, ROWS) for n in grid))
triton_launch.PROGRAMS = 1 << 40
triton_launch.gate_gradients = lambda *x: (x[5][..., :ROWS], x[5][..., :ROWS])
case, heads = torch.load(sys.argv[1], weights_only=True)
out = []
for form in ("quadratic", "chunkwise"):
    for count in (ROWS, heads):
        x = {name: sparse(1, part.shape[1], count, *part.shape[3:]) for name, part in case.items()}
        for name, part in case.items():
            x[name][:, :, :ROWS] = part
        inputs = [x[name] for name in "qkvif"]
        h, *rest = getattr(triton_launch, f"{form}_forward")(*inputs, True, "ieee")
        backward = getattr(triton_launch, f"{form}_backward")
        dq, dk, dv, sums, _ = backward(x["dh"], *inputs, h, *rest, True, "ieee")
        out.append([part[:, :, :ROWS].clone() for part in (h, *rest, dq, dk, dv)] + [sums.clone()])
torch.save(out, sys.argv[2])
"""


@pytest.mark.parametrize(
    ("heads", "width"), [(1 << 26, 1), pytest.param(1 << 25, 33, marks=pytest.mark.slow)]
)
def test_tensors_beyond_32_bits(
    interpret: Interpret, draw: Callable[..., Case], tmp_path: Path, heads: int, width: int
) -> None:
    """Three heads of millions: elements of every input, output and sum lie beyond 2**31."""
    case = {name: x.float() for name, x in draw(1, 34, 3, width).items()}
    found = interpret([case, heads], tmp_path, LARGE_SCRIPT)
    for few, many in zip(found[::2], found[1::2], strict=True):
        assert all(torch.equal(x, y) for x, y in zip(few, many, strict=True))
        assert all(x.any() for x in few)


SUMS_SCRIPT = """
import sys, torch
from xlstm_kernels import triton_launch
i, f = torch.load(sys.argv[1], weights_only=True)
torch.save([list(triton_launch.scan_levels(i, f, reverse)) for reverse in (False, True)], sys.argv[2])
"""


def test_sums_of_gates_keep_their_digits(interpret: Interpret, tmp_path: Path) -> None:
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
    interpret: Interpret,
    draw_layer: Callable[..., ViLWeights],
    relative: Callable[[Tensor, Tensor], float],
    tmp_path: Path,
) -> None:
    """Several spans of tokens and tiles of features, heads that are no power of two, two heads, one token."""
    g = torch.Generator().manual_seed(0)
    cases, truths, plains = [], [], []
    for (batch, size, width), reverse in (((1, 37, 12), False), ((1, 34, 10), True), ((2, 1, 40), False)):
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
