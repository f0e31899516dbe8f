"""Gradient of the Vision-LSTM layer, block by block: a block is computed again, nothing else of it is kept.

Memory is that of the tokens and their gradient, and of one block; what was carried into each block comes from
the forward pass.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_kernels import chunkwise
from xlstm_kernels.block_layer import TAIL, Carry, Front, convolve, front, layer_plan
from xlstm_kernels.blocks import blocks, from_rows, padded, put, take, to_rows
from xlstm_kernels.dense import EPS
from xlstm_kernels.folding import FoldedWeights
from xlstm_kernels.weights import CONV_KERNEL, NORM_EPS


def vil_backward(
    dy: Tensor, x: Tensor, w: FoldedWeights, carries: list[Carry], reverse: bool
) -> tuple[Tensor, FoldedWeights]:
    """Gradient of `block_layer.vil_forward`: of x (B, S, C), and of the folded weights."""
    length, chunk = layer_plan(x, w)
    dx = torch.empty_like(x)
    dw = FoldedWeights(*(torch.zeros_like(part, dtype=w.conv.dtype) for part in w))
    state = carries[0].state
    grad = Carry(
        chunkwise.State(
            torch.zeros_like(state.matrix),
            torch.zeros_like(state.vector),
            state.m.new_zeros(2, state.m.shape[0]),
        ),
        torch.zeros_like(carries[0].tail),
    )
    order = list(blocks(x.shape[1], length, reverse))
    for where, carry in zip(reversed(order), reversed(carries), strict=True):
        part = x[:, where].flip(1) if reverse else x[:, where]
        tokens = padded(where, chunk)
        upstream = take(dy, where, tokens, reverse)
        down, grad = _block_backward(upstream, part, w, carry, tokens, chunk, grad, dw)
        put(dx, where, down, reverse)
    return dx, dw


def _block_backward(
    dy: Tensor,
    x: Tensor,
    w: FoldedWeights,
    carry: Carry,
    tokens: int,
    chunk: int,
    grad: Carry,
    dw: FoldedWeights,
) -> tuple[Tensor, Carry]:
    """Gradient of one block [B, up to T, C] and of what is carried into it; adds to ``dw``."""
    work = w.conv.dtype
    block = front(x, w, carry, tokens, chunk, work)
    c = block.chunks
    numerator, signed, _ = chunkwise.forward_block(c, carry.state)
    h = numerator / torch.maximum(signed.abs(), chunkwise.floor_of(c)).add_(EPS).unsqueeze(-1)
    d_gated = F.linear(dy, w.proj_down.mT).to(work)
    dh, da, dz, gated = _output_backward(d_gated, h, block, w, dw)
    dw.proj_down.addmm_(dy.flatten(0, 1).mT.to(work), gated.flatten(0, 1))
    (dq, dk, dv, di, df), d_state = chunkwise.backward_block(
        c, carry.state, dh, h, signed, block.f, grad.state
    )
    dm = torch.zeros_like(block.m)
    dm[:, tokens:] += grad.tail
    inner = dm[:, TAIL:]
    m = block.m[:, TAIL:]
    d_gates = torch.cat([_tokens(di, x.shape[0]), _tokens(df, x.shape[0])], -1).to(work)
    da += d_gates @ w.gates_a
    inner += d_gates @ w.gates_m
    flat = d_gates.flatten(0, 1)
    dw.gates_a.addmm_(flat.mT, block.a.flatten(0, 1))
    dw.gates_m.addmm_(flat.mT, m.flatten(0, 1))
    dw.gates_bias.add_(flat.sum(0))
    _blockwise_backward(dq, block.a, w.q, w.heads, da, dw.q)
    _blockwise_backward(dk, block.a, w.k, w.heads, da, dw.k)
    _blockwise_backward(dv, m, w.v, w.heads, inner, dw.v)
    _convolve_backward(da, block.m, w, dm, dw)
    d_both = torch.cat([inner[:, : x.shape[1]], dz[:, : x.shape[1]]], -1)
    down = project_up_backward(d_both, x, w, dw)
    return down + dy[:, : x.shape[1]], Carry(d_state, dm[:, :TAIL].clone())


def _tokens(gate: Tensor, batch: int) -> Tensor:
    """Bring gradients of gates [N, T] to [B, T, NH]."""
    return gate.view(batch, -1, gate.shape[-1]).transpose(1, 2)


def _output_backward(
    d_gated: Tensor, h: Tensor, block: Front, w: FoldedWeights, dw: FoldedWeights
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Head norm, skip and gating: gradients of h (rows), a and z, and the gated tokens themselves."""
    batch, tokens, _ = block.a.shape
    mean = h.mean(-1, keepdim=True)
    centred = h - mean
    rstd = (centred.square().mean(-1, keepdim=True) + NORM_EPS).rsqrt_()
    normed_rows = centred.mul_(rstd)
    normed = from_rows(normed_rows, batch, w.heads).flatten(2)
    out = torch.addcmul(block.a * w.skip, normed, w.outnorm)
    gate = torch.sigmoid(block.z)
    silu = block.z * gate
    d_out = d_gated * silu
    dz = d_gated.mul_(out).mul_(gate.addcmul_(silu, 1.0 - gate))
    dw.skip.add_((d_out * block.a).sum((0, 1)))
    dw.outnorm.add_((d_out * normed).sum((0, 1)))
    d_normed = to_rows((d_out * w.outnorm).view(batch, tokens, w.heads, -1), h.shape[1]).reshape(h.shape)
    projection = (d_normed * normed_rows).mean(-1, keepdim=True)
    d_normed -= d_normed.mean(-1, keepdim=True)
    dh = d_normed.addcmul_(normed_rows, projection, value=-1.0).mul_(rstd)
    return dh, d_out * w.skip, dz, out.mul_(silu)


def _blockwise_backward(
    d_rows: Tensor, x: Tensor, weight: Tensor, heads: int, dx: Tensor, d_weight: Tensor
) -> None:
    """Gradient of a block-diagonal projection, given as rows [R, L, D]; adds to ``dx`` and ``d_weight``."""
    count, size, _ = weight.shape
    upstream = from_rows(d_rows, x.shape[0], heads).reshape(-1, count * size)
    blockwise_weight_gradient(upstream, x.reshape(-1, count * size), d_weight)
    upstream = upstream.view(-1, count, size).transpose(0, 1)
    dx += torch.bmm(upstream, weight.mT).transpose(0, 1).reshape(dx.shape)


def blockwise_weight_gradient(upstream: Tensor, x: Tensor, d_weight: Tensor) -> None:
    """Add the gradient of block-diagonal weights [P, g (in), g (out)], from tokens [T, E] and upstream."""
    count, size, _ = d_weight.shape
    upstream, x = (part.view(-1, count, size).transpose(0, 1) for part in (upstream, x))
    d_weight.baddbmm_(x.mT, upstream)


def _convolve_backward(da: Tensor, m: Tensor, w: FoldedWeights, dm: Tensor, dw: FoldedWeights) -> None:
    """SiLU and convolution: adds to the gradient ``dm`` of the tokens [B, 3 + T, E] and to ``dw``."""
    tokens = da.shape[1]
    before = convolve(m, w)
    gate = torch.sigmoid(before)
    d_before = da.mul_(torch.addcmul(gate, before * gate, 1.0 - gate))
    for tap in range(CONV_KERNEL):
        seen = slice(tap, tap + tokens)
        dm[:, seen].addcmul_(d_before, w.conv[tap])
        dw.conv[tap].add_((d_before * m[:, seen]).sum((0, 1)))
    dw.conv_bias.add_(d_before.sum((0, 1)))


def project_up_backward(d_both: Tensor, x: Tensor, w: FoldedWeights, dw: FoldedWeights) -> Tensor:
    """First projection and norm: gradient of tokens x [B, T, C] from that of m and z; adds to ``dw``."""
    width = x.shape[-1]
    x = x.contiguous()
    normed, mean, rstd = torch.native_layer_norm(x, [width], w.norm, None, NORM_EPS)
    product = d_both.flatten(0, 1).mT @ normed.flatten(0, 1).to(d_both.dtype)
    dw.proj_up.add_(product)
    d_normed = F.linear(d_both.to(x.dtype), w.proj_up.mT)
    down, d_norm, _ = torch.ops.aten.native_layer_norm_backward(
        d_normed, x, [width], mean, rstd, w.norm, None, [True, True, False]
    )
    dw.norm.add_(d_norm)
    result: Tensor = down
    return result
