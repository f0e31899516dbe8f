"""The Vision-LSTM layer as one `torch.library` operation, with fake implementation and gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlstm_kernels import block_layer, chunkwise
from xlstm_kernels.block_layer_backward import vil_backward
from xlstm_kernels.blocks import work_dtype
from xlstm_kernels.folding import FoldedWeights
from xlstm_kernels.register import operation

Carries = tuple[Tensor, Tensor, Tensor, Tensor]


def _run(x: Tensor, weights: list[Tensor], reverse: bool, keep: bool) -> tuple[Tensor, ...]:
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


def _fake(x: Tensor, weights: list[Tensor], reverse: bool, keep: bool) -> tuple[Tensor, ...]:
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


def _run_backward(
    dy: Tensor, x: Tensor, weights: list[Tensor], carries: list[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    kept = [
        block_layer.Carry(chunkwise.State(matrix, vector, m), tail)
        for matrix, vector, m, tail in zip(*carries, strict=True)
    ]
    dx, dw = vil_backward(dy, x, FoldedWeights(*weights), kept, reverse)
    return dx, [part.to(weight.dtype) for part, weight in zip(dw, weights, strict=True)]


def _fake_backward(
    dy: Tensor, x: Tensor, weights: list[Tensor], carries: list[Tensor], reverse: bool
) -> tuple[Tensor, list[Tensor]]:
    return torch.empty_like(x), [torch.empty_like(weight) for weight in weights]


vil_layer_backward = operation(
    "vil_layer_backward",
    "(Tensor dy, Tensor x, Tensor[] weights, Tensor[] carries, bool reverse) -> (Tensor, Tensor[])",
    _run_backward,
    _fake_backward,
)
"""Gradient of `vil_layer_op`: of x, and of every folded weight."""


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


vil_layer_op = operation(
    "vil_layer",
    "(Tensor x, Tensor[] weights, bool reverse, bool keep) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run,
    _fake,
    save=_save,
    backward=_backward,
)
"""Layer over tokens (B, S, C) with folded weights: y; where ``keep``, what is carried into each block."""


def _run_triton(
    x: Tensor, weights: list[Tensor], reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from xlstm_kernels import triton_layer_launch

    y, saved = triton_layer_launch.forward(x, FoldedWeights(*weights), reverse, precision)
    return y, *saved


def _fake_triton(
    x: Tensor, weights: list[Tensor], reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    w = FoldedWeights(*weights)
    inner, tokens = w.conv.shape[1], x.shape[:2]
    m, signed = (x.new_empty(*tokens, w.heads, dtype=torch.float32) for _ in range(2))
    h = x.new_empty(*tokens, w.heads, inner // w.heads)
    return x.new_empty(x.shape), x.new_empty(*tokens, 2 * inner), h, m, signed


def _run_triton_backward(
    dy: Tensor, x: Tensor, weights: list[Tensor], saved: list[Tensor], reverse: bool, precision: str
) -> tuple[Tensor, list[Tensor]]:
    from xlstm_kernels import triton_layer_launch

    both, h, m, signed = saved
    dx, dw = triton_layer_launch.backward(
        dy.contiguous(), x, FoldedWeights(*weights), (both, h, m, signed), reverse, precision
    )
    return dx, [part.to(weight.dtype) for part, weight in zip(dw, weights, strict=True)]


def _fake_triton_backward(
    dy: Tensor, x: Tensor, weights: list[Tensor], saved: list[Tensor], reverse: bool, precision: str
) -> tuple[Tensor, list[Tensor]]:
    return x.new_empty(x.shape), [torch.empty_like(weight) for weight in weights]


vil_layer_triton_backward = operation(
    "vil_layer_triton_backward",
    "(Tensor dy, Tensor x, Tensor[] weights, Tensor[] saved, bool reverse, str precision)"
    " -> (Tensor, Tensor[])",
    _run_triton_backward,
    _fake_triton_backward,
)
"""Gradient of `vil_layer_triton_op`: of x, and of every folded weight."""


def _save_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weights, ctx.reverse, ctx.precision = inputs
    ctx.count = len(weights)
    ctx.save_for_backward(x, *weights, *output[1:])
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_triton(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Any, ...]:
    if dy is None:
        return None, [None] * ctx.count, None, None
    x, *rest = ctx.saved_tensors
    weights, saved = rest[: ctx.count], rest[ctx.count :]
    dx, dw = vil_layer_triton_backward(dy, x, weights, saved, ctx.reverse, ctx.precision)
    return dx, dw, None, None


vil_layer_triton_op = operation(
    "vil_layer_triton",
    "(Tensor x, Tensor[] weights, bool reverse, str precision) -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _run_triton,
    _fake_triton,
    save=_save_triton,
    backward=_backward_triton,
)
"""Layer over tokens (B, S, C) by Triton: y, and for its gradient m and z, h, stabiliser, normaliser."""
