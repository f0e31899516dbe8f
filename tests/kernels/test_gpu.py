"""The Triton kernels on a GPU: sizes, widths, dtypes and gates, against the dense form in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from xlstm_kernels import ViLWeights, mlstm, vil_layer
from xlstm_kernels.layer import vil_layer_plain

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
]

NAMES = ("q", "k", "v", "i", "f")
Case = dict[str, Tensor]
Relative = Callable[[Tensor, Tensor], float]

SHAPES = [
    (1, 1, 1, 16), (2, 15, 4, 8), (1, 16, 8, 25), (1, 17, 2, 30), (40, 25, 4, 32), (1, 60, 2, 48), (2, 63, 4,
    64), (1, 64, 1, 128), (1, 65, 2, 160), (1, 100, 4, 200), (2, 210, 4, 210), (1, 320, 2, 256), (1, 840, 8,
    10), (2, 1000, 4, 4), (1, 6720, 4, 16), (1, 6720, 2, 64), (1, 6720, 1, 128), (1, 1000, 2, 160), (1, 257,
    2, 1),
]  # fmt: skip
TOLERANCES = {
    "ieee": (torch.float32, "ieee", 2e-6, 2e-5),
    "tf32": (torch.float32, "tf32", 2e-3, 5e-3),
    "bf16": (torch.bfloat16, "ieee", 8e-3, 2e-2),
    "fp16": (torch.float16, "ieee", 1e-3, 4e-3),
}
EXTREMES = [(20.0, None), (80.0, None), (1.0, 30.0), (1.0, 100.0), (20.0, 30.0), (80.0, 100.0)]


def to_gpu(case: Case, dtype: torch.dtype) -> Case:
    return {name: x.cuda().to(torch.float32 if name in "if" else dtype) for name, x in case.items()}


def run(case: Case, backend: str, reverse: bool = False, precision: str = "ieee") -> list[Tensor]:
    inputs = [case[name].detach().requires_grad_() for name in NAMES]
    h = mlstm(*inputs, reverse, backend=backend, precision=precision)
    return [h.detach(), *torch.autograd.grad(h, inputs, case["dh"])]


def double(case: Case) -> Case:
    return {name: x.double() for name, x in case.items()}


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
def test_every_shape(
    draw: Callable[..., Case], relative: Relative, shape: tuple[int, ...], kind: str, reverse: bool
) -> None:
    dtype, precision, output, gradient = TOLERANCES[kind]
    case = to_gpu(draw(*shape), dtype)
    truth = run(double(case), "dense", reverse)
    plain = run(case, "dense", reverse)
    found = run(case, "triton", reverse, precision)
    assert found[0].dtype == dtype
    for name, x, y, d in zip(("h", *NAMES), found, truth, plain, strict=True):
        assert relative(x, y) <= max(output if name == "h" else gradient, 2 * relative(d, y)), name


@pytest.fixture(params=[True, False], ids=["quadratic", "chunkwise"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one form of the kernels take every shape."""
    from xlstm_kernels import triton_launch

    monkeypatch.setattr(triton_launch, "quadratic", lambda *_: request.param)


@pytest.mark.usefixtures("form", "poisoned")
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("kind", [*TOLERANCES, "tf32x3"])
@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1, 16), (2, 17, 2, 25), (40, 100, 4, 8), (1, 210, 4, 160), (2, 512, 4, 128), (1, 1000, 2, 256)],
    ids=lambda s: "x".join(map(str, s)),
)
def test_either_form(
    draw: Callable[..., Case], relative: Relative, shape: tuple[int, ...], kind: str, reverse: bool
) -> None:
    """Both forms of the kernels on shapes that only one of them takes by itself."""
    dtype, precision, output, gradient = TOLERANCES.get(kind, (torch.float32, kind, 5e-6, 5e-5))
    case = to_gpu(draw(*shape), dtype)
    if shape[1] > 100:
        case["f"][:, 77] = -torch.inf
    truth = run(double(case), "dense", reverse)
    plain = run(case, "dense", reverse)
    found, again = (run(case, "triton", reverse, precision) for _ in range(2))
    for name, x, z, y, d in zip(("h", *NAMES), found, again, truth, plain, strict=True):
        assert relative(x, y) <= max(output if name == "h" else gradient, 2 * relative(d, y)), name
        assert torch.equal(x, z)


@pytest.mark.usefixtures("form")
@pytest.mark.parametrize(("i_range", "f_range"), EXTREMES)
def test_extreme_gates(
    draw: Callable[..., Case], relative: Relative, i_range: float, f_range: float | None
) -> None:
    case = to_gpu(draw(1, 500, 2, 32, i_range, f_range), torch.float32)
    truth, plain, found = run(double(case), "dense"), run(case, "dense"), run(case, "triton")
    for name, x, y, d in zip(("h", *NAMES), found, truth, plain, strict=True):
        assert relative(x, y) <= max(2e-6 if name == "h" else 2e-5, 2 * relative(d, y)), name


@pytest.mark.usefixtures("form")
def test_hard_reset_and_overflow(draw: Callable[..., Case], relative: Relative) -> None:
    case = to_gpu(draw(1, 300, 2, 16), torch.float32)
    case["f"][:, 140] = -torch.inf
    for x, y in zip(run(case, "triton"), run(double(case), "dense"), strict=True):
        assert relative(x, y) <= 3e-5
    case["i"].fill_(-120.0)
    h, *gradients = run(case, "triton")
    assert torch.equal(h, torch.zeros_like(h))
    assert all(x.isfinite().all() for x in gradients)


def test_golden(golden_cells: list[Case], relative: Relative) -> None:
    for case in golden_cells:
        truth = [case["h"], *(case["d" + name] for name in NAMES)]
        single = to_gpu(case, torch.float32)
        for x, d, y in zip(run(single, "triton"), run(single, "dense"), truth, strict=True):
            assert relative(x.cpu(), y) <= max(2e-5, 2 * relative(d.cpu(), y))


@pytest.mark.usefixtures("form", "poisoned")
def test_written_and_repeatable(draw: Callable[..., Case]) -> None:
    for shape in ((2, 333, 4, 25), (1, 700, 2, 160)):
        case = to_gpu(draw(*shape), torch.float32)
        for x, y in zip(run(case, "triton"), run(case, "triton"), strict=True):
            assert x.isfinite().all()
            assert torch.equal(x, y)


@pytest.mark.usefixtures("form")
def test_reverse_is_flip_run_flip(draw: Callable[..., Case]) -> None:
    case = to_gpu(draw(2, 1000, 4, 32), torch.bfloat16)
    turned = {name: x.flip(1) for name, x in case.items()}
    for x, y in zip(run(case, "triton", True)[:4], run(turned, "triton")[:4], strict=True):
        assert torch.equal(x, y.flip(1))


@pytest.mark.usefixtures("form")
def test_strides(draw: Callable[..., Case]) -> None:
    case = to_gpu(draw(2, 130, 4, 16), torch.float32)
    strided = {name: x.transpose(0, 2).contiguous().transpose(0, 2) for name, x in case.items()}
    for x, y in zip(run(case, "triton"), run(strided, "triton"), strict=True):
        assert torch.equal(x, y)


def test_two_million_tokens(relative: Relative) -> None:
    g = torch.Generator("cuda").manual_seed(0)
    size = 1 << 21
    q, k, v = (
        torch.randn(8, size, 8, 16, generator=g, device="cuda", dtype=torch.bfloat16) for _ in range(3)
    )
    i, f = (torch.randn(8, size, 8, generator=g, device="cuda") for _ in range(2))
    h = mlstm(q, k, v, i, f, backend="triton")
    tail = slice(size - 400, None)
    near = mlstm(*(x[7:, tail, 7:].double() for x in (q, k, v, i, f)), backend="dense")
    assert relative(h[7:, -64:, 7:], near[:, -64:]) < 2e-2


def test_compiled_and_captured(draw: Callable[..., Case], relative: Relative) -> None:
    case = to_gpu(draw(1, 700, 4, 32), torch.float32)
    inputs = [case[name].detach().requires_grad_() for name in NAMES]
    compiled = torch.compile(mlstm, fullgraph=True)
    h = compiled(*inputs, backend="triton")
    gradients = torch.autograd.grad(h, inputs, case["dh"])
    for x, y in zip([h, *gradients], run(case, "triton"), strict=True):
        assert relative(x.detach(), y) <= 1e-6
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad():
        mlstm(*inputs, backend="triton")
        torch.cuda.synchronize()
        with torch.cuda.graph(graph):
            captured = mlstm(*inputs, backend="triton")
        graph.replay()
    assert torch.equal(captured, h.detach())


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize(("width", "size"), [(32, 3000), (128, 700), (50, 77), (25, 1), (640, 210)])
@pytest.mark.parametrize("kind", ["ieee", "bf16"])
def test_layer(
    draw_layer: Callable[..., ViLWeights], relative: Relative, width: int, size: int, kind: str, reverse: bool
) -> None:
    dtype, _, output, gradient = TOLERANCES[kind]
    x, upstream = torch.randn(
        2, 2, size, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    inputs = [part.cuda().requires_grad_() for part in (x, *draw_layer(width))]
    y = vil_layer_plain(inputs[0], ViLWeights(*inputs[1:]), reverse, backend="dense")
    truth = [y.detach(), *torch.autograd.grad(y, inputs, upstream.cuda())]
    single = [part.detach().to(torch.float32).requires_grad_() for part in inputs]
    for backend in ("triton", "torch"):
        found = vil_layer(single[0].to(dtype), ViLWeights(*single[1:]), reverse=reverse, backend=backend)
        gradients = torch.autograd.grad(found, single, upstream.cuda().to(dtype))
        for name, one, other in zip(("y", "x", *ViLWeights._fields), (found, *gradients), truth, strict=True):
            # small sums of many terms: five times what a cell alone may be off by
            assert relative(one.detach(), other) <= 5 * (output if name == "y" else gradient), (backend, name)


def test_layer_compiled_captured_and_repeatable(draw_layer: Callable[..., ViLWeights]) -> None:
    w = ViLWeights(*(part.float().cuda() for part in draw_layer(64)))
    x = torch.randn(1, 900, 64, device="cuda")
    plain = vil_layer(x, w, backend="triton")
    assert torch.equal(vil_layer(x, w, backend="triton"), plain)
    compiled = torch.compile(vil_layer, fullgraph=True)(x, w, backend="triton")
    torch.testing.assert_close(compiled, plain, rtol=1e-5, atol=1e-5)
    for backend in ("triton", "torch"):
        graph = torch.cuda.CUDAGraph()
        with torch.no_grad():
            expected = vil_layer(x, w, backend=backend)
            torch.cuda.synchronize()
            with torch.cuda.graph(graph):
                captured = vil_layer(x, w, backend=backend)
            graph.replay()
        torch.testing.assert_close(captured, expected)
