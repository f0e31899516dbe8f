"""The Vision-LSTM layer: the fused forms against the plain one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from xlstm_kernels import ViLWeights, blocks, vil_layer
from xlstm_kernels.folding import fold
from xlstm_kernels.layer import vil_layer_plain
from xlstm_kernels.layer_ops import vil_layer_op

Relative = Callable[[Tensor, Tensor], float]
SIZES = [
    (1, 1, 8),
    (2, 40, 8),
    (1, 16, 25),
    (1, 77, 50),
    (2, 333, 32),
    (1, 100, 60),
    (1, 700, 64),
    (1, 65, 256),
]


def cast(w: ViLWeights, dtype: torch.dtype) -> ViLWeights:
    return ViLWeights(*(x.to(dtype) for x in w))


def tokens(batch: int, size: int, width: int) -> Tensor:
    return torch.randn(batch, size, width, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("shape", SIZES, ids=lambda s: "x".join(map(str, s)))
def test_fused_is_plain(
    draw_layer: Callable[..., ViLWeights], relative: Relative, shape: tuple[int, int, int], reverse: bool
) -> None:
    x, w = tokens(*shape), draw_layer(shape[-1])
    truth = vil_layer_plain(x, w, reverse, backend="dense") - x
    assert relative(vil_layer(x, w, reverse=reverse) - x, truth) <= 1e-12
    single = vil_layer(x.float(), cast(w, torch.float32), reverse=reverse)
    assert relative(single.double() - x, truth) <= 5e-6
    half = vil_layer(x.bfloat16(), cast(w, torch.float32), reverse=reverse)
    assert half.dtype == torch.bfloat16
    assert shape[1] == 1 or relative(half.double() - x, truth) <= 2e-2  # one token is an unlucky draw


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_strides(draw_layer: Callable[..., ViLWeights], relative: Relative, reverse: bool) -> None:
    w = cast(draw_layer(16), torch.float32)
    x = tokens(2, 90, 16).float()
    transposed = x.mT.contiguous().mT
    found = vil_layer(transposed, w, reverse=reverse)
    assert relative(found, vil_layer(x, w, reverse=reverse).double()) <= 1e-6


@pytest.mark.usefixtures("poisoned")
def test_every_element_is_written(draw_layer: Callable[..., ViLWeights]) -> None:
    w = cast(draw_layer(32), torch.float32)
    for size in (7, 1500):
        assert vil_layer(tokens(2, size, 32).float(), w).isfinite().all()


def test_wrong_width(draw_layer: Callable[..., ViLWeights]) -> None:
    with pytest.raises(ValueError, match="expected \\(B, S, C\\) with C = 8"):
        vil_layer(torch.zeros(1, 4, 9), draw_layer(8))


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("width", [8, 10, 12])
def test_gradient_through_several_blocks(
    draw_layer: Callable[..., ViLWeights],
    relative: Relative,
    monkeypatch: pytest.MonkeyPatch,
    width: int,
    reverse: bool,
) -> None:
    monkeypatch.setitem(blocks.BLOCK_ELEMENTS, "cpu", 1 << 11)
    x, w = tokens(2, 200, width), draw_layer(width)
    inputs = [part.requires_grad_() for part in (x, *w)]
    upstream = tokens(2, 200, width).flip(1)
    truth = torch.autograd.grad(vil_layer_plain(x, w, reverse, backend="dense"), inputs, upstream)
    found = torch.autograd.grad(vil_layer(x, w, reverse=reverse), inputs, upstream)
    for name, one, other in zip(("x", *ViLWeights._fields), found, truth, strict=True):
        assert relative(one, other) <= 1e-10, name


def test_opcheck(draw_layer: Callable[..., ViLWeights]) -> None:
    x = tokens(1, 70, 8).float().requires_grad_()
    weights = [part.requires_grad_() for part in fold(cast(draw_layer(8), torch.float32), x.dtype, x.dtype)]
    torch.library.opcheck(
        vil_layer_op,
        (x, weights, True, True),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_compiles_without_graph_breaks(draw_layer: Callable[..., ViLWeights], relative: Relative) -> None:
    x, w = tokens(1, 70, 8).float().requires_grad_(), cast(draw_layer(8), torch.float32)
    compiled = torch.compile(vil_layer, fullgraph=True, backend="aot_eager")
    (found,) = torch.autograd.grad(compiled(x, w).square().sum(), x)
    (truth,) = torch.autograd.grad(vil_layer(x, w).square().sum(), x)
    assert relative(found, truth.double()) <= 1e-6
