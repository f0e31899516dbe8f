"""The mLSTM cell as `torch.library` operations, with fake implementations and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlstm_kernels import chunkwise
from xlstm_kernels.blocks import work_dtype
from xlstm_kernels.register import operation

Gradients = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]

_INPUTS = "Tensor q, Tensor k, Tensor v, Tensor i, Tensor f"
_GRADIENTS = "(Tensor, Tensor, Tensor, Tensor, Tensor)"


def _fake_torch(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(i.shape, dtype=work_dtype(q))


def _fake_gradients(dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, *_: Any) -> Gradients:
    return (
        q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
        i.new_empty(i.shape), f.new_empty(f.shape),
    )  # fmt: skip


mlstm_torch_backward = operation(
    "mlstm_torch_backward",
    f"(Tensor dh, {_INPUTS}, Tensor h, Tensor normaliser, bool reverse) -> {_GRADIENTS}",
    chunkwise.mlstm_backward,
    _fake_gradients,
)
"""Gradient of `mlstm_torch`: dq, dk, dv, di, df."""


def _save_torch(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward_torch(ctx: Any, dh: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 6
    return (*mlstm_torch_backward(dh, *ctx.saved_tensors, ctx.reverse), None)


mlstm_torch = operation(
    "mlstm_torch",
    f"({_INPUTS}, bool reverse) -> (Tensor, Tensor)",
    chunkwise.mlstm_forward,
    _fake_torch,
    save=_save_torch,
    backward=_backward_torch,
)
"""Chunkwise cell in torch: h (B, S, NH, DH) and the signed normaliser (B, S, NH) for the gradient."""


def _run_triton(*inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    from xlstm_kernels import triton_launch

    return triton_launch.forward(*inputs)


def _run_triton_backward(*inputs: Any) -> Gradients:
    from xlstm_kernels import triton_launch

    return triton_launch.backward(*inputs)


def _fake_triton(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    m, normaliser = (q.new_empty(i.shape, dtype=torch.float32) for _ in range(2))
    return q.new_empty(q.shape), m, normaliser


mlstm_triton_backward = operation(
    "mlstm_triton_backward",
    f"(Tensor dh, {_INPUTS}, Tensor h, Tensor m, Tensor normaliser, bool reverse, str precision)"
    f" -> {_GRADIENTS}",
    _run_triton_backward,
    _fake_gradients,
)
"""Gradient of `mlstm_triton`: dq, dk, dv, di, df."""


def _save_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.reverse, ctx.precision = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_triton(ctx: Any, dh: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 7
    return (*mlstm_triton_backward(dh, *ctx.saved_tensors, ctx.reverse, ctx.precision), None, None)


mlstm_triton = operation(
    "mlstm_triton",
    f"({_INPUTS}, bool reverse, str precision) -> (Tensor, Tensor, Tensor)",
    _run_triton,
    _fake_triton,
    save=_save_triton,
    backward=_backward_triton,
)
"""Cell in Triton: h (B, S, NH, DH), stabiliser and signed normaliser (B, S, NH) for the gradient."""
