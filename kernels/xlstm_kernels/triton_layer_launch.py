"""The Vision-LSTM layer on a GPU: large products by torch, all else by the kernels of `triton_layer`."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
from torch import Tensor
from torch.nn import functional as F

from xlstm_kernels import triton_launch, triton_layer
from xlstm_kernels.block_layer_backward import blockwise_weight_gradient, project_up_backward
from xlstm_kernels.folding import FoldedWeights
from xlstm_kernels.weights import NORM_EPS

WARPS = 4

Saved = tuple[Tensor, Tensor, Tensor, Tensor]
"""What the backward pass needs: m and z, h, stabiliser and signed normaliser."""


class LayerPlan(NamedTuple):
    """Sizes of the tiles of one layer."""

    span: int  # tokens of a program
    features: int  # features that it takes at a time
    head_span: int  # tokens of a program that takes a whole head
    head: int  # head width, filled up to a power of two


def layer_plan(inner: int, heads: int) -> LayerPlan:
    """Cut up a layer of ``inner`` features in ``heads`` heads."""
    head = max(16, triton.next_power_of_2(inner // heads))
    return LayerPlan(32, min(32, max(16, triton.next_power_of_2(inner))), max(4, 2048 // head), head)


class _Front(NamedTuple):
    a: Tensor  # (B, S, E)
    q: Tensor  # (B, S, NH, DH)
    k: Tensor  # (B, S, NH, DH)
    v: Tensor  # (B, S, NH, DH)
    i: Tensor  # (B, S, NH) float32
    f: Tensor  # (B, S, NH) float32


def forward(x: Tensor, w: FoldedWeights, reverse: bool, precision: str) -> tuple[Tensor, Saved]:
    """Layer over tokens (B, S, C): ``x + layer(norm(x))``, and what the backward pass needs."""
    normed = F.layer_norm(x, x.shape[-1:], w.norm, None, NORM_EPS)
    both = F.linear(normed, w.proj_up)
    front = _front(both, w, reverse)
    h, m, signed = triton_launch.forward(*front[1:], reverse, precision)
    batch, size, _ = x.shape
    inner, p = w.conv.shape[1], layer_plan(w.conv.shape[1], w.heads)
    gated = torch.empty_like(front.a)
    triton_layer.layer_fwd_kernel_gate[triton.cdiv(batch * size, p.head_span), w.heads](
        h, front.a, both, w.outnorm, w.skip, gated, batch * size, inner, inner // w.heads,
        T=p.head_span, D=p.head, num_warps=WARPS,
    )  # fmt: skip
    return F.linear(gated, w.proj_down).add_(x), (both, h, m, signed)


def _front(both: Tensor, w: FoldedWeights, reverse: bool) -> _Front:
    batch, size, _ = both.shape
    inner, heads = w.conv.shape[1], w.heads
    p = layer_plan(inner, heads)
    a = torch.empty(batch, size, inner, dtype=both.dtype, device=both.device)
    q, k, v = (torch.empty_like(a) for _ in range(3))
    i, f = (torch.empty(batch, size, heads, dtype=torch.float32, device=both.device) for _ in range(2))
    triton_layer.layer_fwd_kernel_front[triton.cdiv(size, p.span), batch](
        both, w.conv, w.conv_bias, w.q, w.k, w.v, w.gates_a, w.gates_m, w.gates_bias, a, q, k, v, i, f,
        size, inner, w.q.shape[1],
        HEADS=heads, T=p.span, E=p.features, REVERSE=reverse, num_warps=WARPS,
    )  # fmt: skip
    q, k, v = (part.view(batch, size, heads, -1) for part in (q, k, v))
    return _Front(a, q, k, v, i, f)


def backward(
    dy: Tensor, x: Tensor, w: FoldedWeights, saved: Saved, reverse: bool, precision: str
) -> tuple[Tensor, FoldedWeights]:
    """Gradient of `forward`: of x (B, S, C), and of the folded weights (float32)."""
    both, h, m, signed = saved
    batch, size, _ = x.shape
    inner, heads = w.conv.shape[1], w.heads
    p, rows = layer_plan(inner, heads), batch * size
    dw = FoldedWeights(*(torch.zeros_like(part, dtype=torch.float32) for part in w))
    front = _front(both, w, reverse)
    gated, dh = torch.empty_like(front.a), torch.empty_like(h)
    da, dm = (torch.empty(front.a.shape, dtype=torch.float32, device=x.device) for _ in range(2))
    d_both = torch.empty_like(both)
    spans = triton.cdiv(rows, p.head_span)
    d_outnorm, d_skip = (torch.empty(spans, inner, dtype=torch.float32, device=x.device) for _ in range(2))
    d_gated = F.linear(dy, w.proj_down.mT)
    triton_layer.layer_bwd_kernel_gate[spans, heads](
        d_gated, h, front.a, both, w.outnorm, w.skip, gated, dh, da, d_both, d_outnorm, d_skip,
        rows, inner, inner // heads, T=p.head_span, D=p.head, num_warps=WARPS,
    )  # fmt: skip
    dw.outnorm.copy_(d_outnorm.sum(0))
    dw.skip.copy_(d_skip.sum(0))
    dw.proj_down.copy_(dy.flatten(0, 1).mT @ gated.flatten(0, 1))
    dq, dk, dv, di, df = triton_launch.backward(dh, *front[1:], h, m, signed, reverse, precision)
    d_gates = torch.cat([di, df], -1)
    flat_gates, flat_a, flat_m = (x.flatten(0, 1).float() for x in (d_gates, front.a, both[..., :inner]))
    dw.gates_a.copy_(flat_gates.mT @ flat_a)
    dw.gates_m.copy_(flat_gates.mT @ flat_m)
    dw.gates_bias.copy_(flat_gates.sum(0))
    for up, source, target in ((dq, flat_a, dw.q), (dk, flat_a, dw.k), (dv, flat_m, dw.v)):
        blockwise_weight_gradient(up.flatten(0, 1).flatten(1).float(), source, target)
    grid = (triton.cdiv(size, p.span), triton.cdiv(inner, p.features), batch)
    shape = {"T": p.span, "E": p.features, "REVERSE": reverse, "num_warps": WARPS}
    triton_layer.layer_bwd_kernel_front[grid](
        both, w.conv, w.conv_bias, w.q, w.k, w.v, w.gates_a, w.gates_m, dq, dk, dv, d_gates, da, dm,
        size, inner, w.q.shape[1], HEADS=heads, **shape,
    )  # fmt: skip
    d_conv = torch.empty(batch * grid[0], *w.conv.shape, dtype=torch.float32, device=x.device)
    d_bias = torch.empty(batch * grid[0], inner, dtype=torch.float32, device=x.device)
    triton_layer.layer_bwd_kernel_conv[grid](
        both, w.conv, da, dm, d_both, d_conv, d_bias, size, inner, **shape
    )
    dw.conv.copy_(d_conv.sum(0))
    dw.conv_bias.copy_(d_bias.sum(0))
    return project_up_backward(d_both, x, w, dw).add_(dy), dw
