"""The Vision-LSTM layer as one `torch.library` operation, with fake implementation and gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlstm_kernels import block_layer, chunkwise
from xlstm_kernels.block_layer_backward import vil_backward
from xlstm_kernels.blocks import work_dtype
from xlstm_kernels.folding import FoldedWeights

Carries = tuple[Tensor, Tensor, Tensor, Tensor]


@torch.library.custom_op("xlstm_kernels::vil_layer", mutates_args=())
def vil_layer_op(
    x: Tensor, weights: list[Tensor], reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Layer over tokens (B, S, C) with folded weights: y; where ``keep``, what is carried into each block."""
    y, carries = block_layer.vil_forward(x, FoldedWeights(*weights), reverse)
    return y, *_packed(carries if keep else [], carries[0])


def _packed(carries: list[block_layer.Carry], like: block_layer.Carry) -> Carries:
    parts = [[*carry.state, carry.tail] for carry in carries]
    first = [*like.state, like.tail]
    columns = zip(*parts, strict=True) if parts else ([] for _ in first)
    matrix, vector, m, tail = (
        torch.stack(list(column)) if parts else part.new_empty(0, *part.shape)
        for column, part in zip(columns, first, strict=True)
    )
    return matrix, vector, m, tail


@vil_layer_op.register_fake
def _(
    x: Tensor, weights: list[Tensor], reverse: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    w = FoldedWeights(*weights)
    length, _ = block_layer.layer_plan(x, w)
    count = -(-x.shape[1] // length) if keep else 0
    inner = w.conv.shape[1]
    rows, width = x.shape[0] * w.heads, inner // w.heads
    shapes = (
        (count, rows, width * width),
        (count, rows, width),
        (count, rows),
        (count, x.shape[0], block_layer.TAIL, inner),
    )
    dtypes = (work_dtype(x), work_dtype(x), torch.float64, work_dtype(x))
    matrix, vector, m, tail = (
        x.new_empty(shape, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)
    )
    return torch.empty_like(x), matrix, vector, m, tail


@torch.library.custom_op("xlstm_kernels::vil_layer_backward", mutates_args=())
def vil_layer_backward(
    dy: Tensor, x: Tensor, weights: list[Tensor], carries: list[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    """Gradient of `vil_layer_op`: of x, and of every folded weight."""
    kept = [
        block_layer.Carry(chunkwise.State(matrix, vector, m), tail)
        for matrix, vector, m, tail in zip(*carries, strict=True)
    ]
    dx, dw = vil_backward(dy, x, FoldedWeights(*weights), kept, reverse)
    return dx, [part.to(weight.dtype) for part, weight in zip(dw, weights, strict=True)]


@vil_layer_backward.register_fake
def _(
    dy: Tensor, x: Tensor, weights: list[Tensor], carries: list[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    return torch.empty_like(x), [torch.empty_like(weight) for weight in weights]


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weights, ctx.reverse, _ = inputs
    ctx.count = len(weights)
    ctx.save_for_backward(x, *weights, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    if dy is None:
        return None, [None] * ctx.count, None, None
    x, *rest = ctx.saved_tensors
    weights, carries = rest[: ctx.count], rest[ctx.count :]
    dx, dw = vil_layer_backward(dy, x, weights, carries, ctx.reverse)
    return dx, dw, None, None


vil_layer_op.register_autograd(_backward, setup_context=_save)
