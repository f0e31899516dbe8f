"""The Vision-LSTM layer for a CPU: block of tokens by block of tokens, so that all but the weights stays in cache.

Cost is linear in the number of tokens; memory beyond input and output does not depend on it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_kernels import chunkwise
from xlstm_kernels.blocks import block_plan, blocks, from_rows, padded, put, sequences, to_rows, work_dtype
from xlstm_kernels.dense import EPS
from xlstm_kernels.folding import FoldedWeights
from xlstm_kernels.weights import CONV_KERNEL, NORM_EPS

TAIL = CONV_KERNEL - 1


class Carry(NamedTuple):
    """What a block of the layer hands to the next: the cell's state and the last inputs of the convolution."""

    state: chunkwise.State
    tail: Tensor  # [B, 3, E]


def vil_forward(x: Tensor, w: FoldedWeights, reverse: bool) -> Tensor:
    """``x + layer(norm(x))`` for tokens (B, S, C); matrix products with the weights in the dtype of x."""
    batch, size, _ = x.shape
    inner, heads = w.conv.shape[1], w.heads
    work = work_dtype(x)
    y = torch.empty_like(x)
    length, chunk = block_plan(batch * heads, size, inner // heads, x.device)
    state = chunkwise.initial_state(batch * heads, inner // heads, x.new_empty(0, dtype=work))
    carry = Carry(state, x.new_zeros(batch, TAIL, inner, dtype=work))
    for where in blocks(size, length, reverse):
        part = x[:, where].flip(1) if reverse else x[:, where]
        gated, carry = _block(part, w, carry, padded(where, chunk), chunk)
        out = F.linear(gated.to(x.dtype), w.proj_down)
        out += part
        put(y, where, out, reverse)
    return y


def _block(x: Tensor, w: FoldedWeights, carry: Carry, tokens: int, chunk: int) -> tuple[Tensor, Carry]:
    """One block up to the input of the last projection [B, T, E]."""
    batch, count, _ = x.shape
    heads = w.heads
    m, z = _project_up(x, w, carry.tail, tokens)
    a = _conv(m, w)
    tail = m[:, tokens:].clone()
    m = m[:, TAIL:]
    gates = F.linear(a, w.gates_a, w.gates_bias).add_(F.linear(m, w.gates_m))
    i, f = (sequences(part) for part in gates.chunk(2, -1))
    q, k, v = (_blockwise(part, weight, heads, chunk) for part, weight in ((a, w.q), (a, w.k), (m, w.v)))
    c = chunkwise.prepare(q, k, v, i, f, carry.state.m, w.cell_dtype)
    numerator, signed, state = chunkwise.forward_block(c, carry.state)
    den = torch.maximum(signed.abs(), chunkwise.floor_of(c)).add_(EPS)
    h = from_rows(_head_norm(numerator.to(den.dtype), den), batch, heads)
    out = a.mul_(w.skip)
    out.view(h.shape).addcmul_(h, w.outnorm.view(heads, -1))
    return out[:, :count].mul_(F.silu(z[:, :count], inplace=True)), Carry(state, tail)


def _project_up(x: Tensor, w: FoldedWeights, tail: Tensor, tokens: int) -> tuple[Tensor, Tensor]:
    """First projection: m behind the last inputs of the block before [B, 3 + T, E], and z [B, T, E]."""
    batch, count, width = x.shape
    inner = w.conv.shape[1]
    both = torch.empty(batch, TAIL + tokens, 2 * inner, dtype=tail.dtype, device=x.device)
    both[:, :TAIL, :inner] = tail
    if count < tokens:
        both[:, TAIL + count :] = 0.0
    normed = F.layer_norm(x, (width,), w.norm, None, NORM_EPS)
    where = both[:, TAIL : TAIL + count]
    if batch == 1 and where.dtype == x.dtype:
        torch.mm(normed[0], w.proj_up.mT, out=where[0])
    else:
        where.copy_(F.linear(normed, w.proj_up))
    return both[..., :inner], both[:, TAIL:, inner:]


def _conv(m: Tensor, w: FoldedWeights) -> Tensor:
    """Causal convolution and SiLU of [B, 3 + T, E] as shifted products: [B, T, E]."""
    tokens = m.shape[1] - TAIL
    a = torch.addcmul(w.conv_bias, m[:, :tokens], w.conv[0])
    for tap in range(1, CONV_KERNEL):
        a.addcmul_(m[:, tap : tap + tokens], w.conv[tap])
    return F.silu(a, inplace=True)


def _blockwise(x: Tensor, weight: Tensor, heads: int, chunk: int) -> Tensor:
    """Block-diagonal projection of [B, T, E] with weight [P, g (in), g (out)], as rows [G, B, NH, L, ...]."""
    batch, tokens, inner = x.shape
    count, size, _ = weight.shape
    flat = x.reshape(-1, inner).view(-1, count, size).transpose(0, 1)
    out = torch.bmm(flat, weight)
    if count % heads:
        return to_rows(out.transpose(0, 1).reshape(batch, tokens, heads, -1), chunk)
    return out.view(heads, count // heads, batch, -1, chunk, size).permute(3, 2, 0, 4, 1, 5)


def _head_norm(numerator: Tensor, den: Tensor) -> Tensor:
    """Norm over D of ``numerator / den``, the division folded into the norm (in place)."""
    width = numerator.shape[-1]
    average = numerator.new_full((width,), 1.0 / width)
    numerator -= (numerator @ average).unsqueeze(-1)
    variance = numerator.square() @ average
    return numerator.mul_(variance.addcmul_(den, den, value=NORM_EPS).rsqrt_().unsqueeze(-1))
