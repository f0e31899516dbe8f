"""The mLSTM cell as `torch.library` operations, with fake implementations and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xlstm_kernels import chunkwise
from xlstm_kernels.blocks import work_dtype


@torch.library.custom_op("xlstm_kernels::mlstm_torch", mutates_args=())
def mlstm_torch(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Chunkwise cell in torch: h (B, S, NH, DH) and the signed normaliser (B, S, NH) for the gradient."""
    return chunkwise.mlstm_forward(q, k, v, i, f, reverse)


@mlstm_torch.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool) -> tuple[Tensor, Tensor]:
    return q.new_empty(q.shape), q.new_empty(i.shape, dtype=work_dtype(q))


@torch.library.custom_op("xlstm_kernels::mlstm_torch_backward", mutates_args=())
def mlstm_torch_backward(
    dh: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    normaliser: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `mlstm_torch`: dq, dk, dv, di, df."""
    return chunkwise.mlstm_backward(dh, q, k, v, i, f, h, normaliser, reverse)


@mlstm_torch_backward.register_fake
def _(
    dh: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    normaliser: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
        i.new_empty(i.shape), f.new_empty(f.shape),
    )  # fmt: skip


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.reverse = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dh: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 6
    return (*mlstm_torch_backward(dh, *ctx.saved_tensors, ctx.reverse), None)


mlstm_torch.register_autograd(_backward, setup_context=_save)


@torch.library.custom_op("xlstm_kernels::mlstm_triton", mutates_args=())
def mlstm_triton(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Cell in Triton: h (B, S, NH, DH), stabiliser and signed normaliser (B, S, NH) for the gradient."""
    from xlstm_kernels import triton_launch

    return triton_launch.forward(q, k, v, i, f, reverse, precision)


@mlstm_triton.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    m, normaliser = (q.new_empty(i.shape, dtype=torch.float32) for _ in range(2))
    return q.new_empty(q.shape), m, normaliser


@torch.library.custom_op("xlstm_kernels::mlstm_triton_backward", mutates_args=())
def mlstm_triton_backward(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
    h: Tensor, m: Tensor, normaliser: Tensor, reverse: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of `mlstm_triton`: dq, dk, dv, di, df."""
    from xlstm_kernels import triton_launch

    return triton_launch.backward(dh, q, k, v, i, f, h, m, normaliser, reverse, precision)


@mlstm_triton_backward.register_fake
def _(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor,
    h: Tensor, m: Tensor, normaliser: Tensor, reverse: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape),
        i.new_empty(i.shape), f.new_empty(f.shape),
    )  # fmt: skip


def _save_triton(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.reverse, ctx.precision = inputs
    ctx.save_for_backward(*tensors, *output)
    ctx.mark_non_differentiable(*output[1:])
    ctx.set_materialize_grads(False)


def _backward_triton(ctx: Any, dh: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    if dh is None:
        return (None,) * 7
    return (*mlstm_triton_backward(dh, *ctx.saved_tensors, ctx.reverse, ctx.precision), None, None)


mlstm_triton.register_autograd(_backward_triton, setup_context=_save_triton)
