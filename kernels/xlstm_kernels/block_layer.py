"""The Vision-LSTM layer by blocks of tokens, so that on a CPU all but the weights stays in cache.

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

NARROW = 64
"""Head width from which the cell multiplies in the dtype of the tokens."""


LONGER = 2
"""Blocks of a layer are so many times as long as those of a cell alone: there is more to do between two."""


class Carry(NamedTuple):
    """What a block of the layer hands to the next: state of the cell, last inputs of the convolution."""

    state: chunkwise.State
    tail: Tensor  # [B, 3, E]


def initial_carry(x: Tensor, w: FoldedWeights) -> Carry:
    """Carry before the first token of x (B, S, C)."""
    batch, inner = x.shape[0], w.conv.shape[1]
    like = x.new_empty(0, dtype=work_dtype(x))
    state = chunkwise.initial_state(batch * w.heads, inner // w.heads, like)
    return Carry(state, like.new_zeros(batch, TAIL, inner))


def layer_plan(x: Tensor, w: FoldedWeights) -> tuple[int, int]:
    """Tokens per block and per chunk for x (B, S, C)."""
    return block_plan(x.shape[0] * w.heads, x.shape[1], w.conv.shape[1] // w.heads, x.device, LONGER)


def vil_forward(x: Tensor, w: FoldedWeights, reverse: bool) -> tuple[Tensor, list[Carry]]:
    """Layer over tokens (B, S, C), products with the large weights in the dtype of x.

    Returns
    -------
    tuple
        ``x + layer(norm(x))`` (B, S, C), and what was carried into each block, in the order of the scan.
    """
    y = torch.empty_like(x)
    length, chunk = layer_plan(x, w)
    carries = [initial_carry(x, w)]
    for where in blocks(x.shape[1], length, reverse):
        part = x[:, where].flip(1) if reverse else x[:, where]
        gated, carry = _block(part, w, carries[-1], padded(where, chunk), chunk)
        out = F.linear(gated.to(x.dtype), w.proj_down)
        out += part
        put(y, where, out, reverse)
        carries.append(carry)
    return y, carries[:-1]


class Front(NamedTuple):
    """A block up to the cell."""

    m: Tensor  # [B, 3 + T, E] behind the last tokens of the block before
    z: Tensor  # [B, T, E]
    a: Tensor  # [B, T, E]
    chunks: chunkwise.Chunks
    f: Tensor  # [N, T]


def front(x: Tensor, w: FoldedWeights, carry: Carry, tokens: int, chunk: int, product: torch.dtype) -> Front:
    """Compute a block [B, up to T, C] up to the cell, whose products are in dtype ``product``."""
    heads = w.heads
    both, z = _project_up(x, w, carry.tail, tokens)
    a = F.silu(convolve(both, w), inplace=True)
    m = both[:, TAIL:]
    gates = F.linear(a, w.gates_a, w.gates_bias).add_(F.linear(m, w.gates_m))
    i, f = (sequences(part) for part in gates.chunk(2, -1))
    q, k, v = (_blockwise(part, weight, heads, chunk) for part, weight in ((a, w.q), (a, w.k), (m, w.v)))
    return Front(both, z, a, chunkwise.prepare(q, k, v, i, f, carry.state.m, product), f)


def _block(x: Tensor, w: FoldedWeights, carry: Carry, tokens: int, chunk: int) -> tuple[Tensor, Carry]:
    """One block up to the input of the last projection [B, T, E]."""
    batch, count, _ = x.shape
    # narrow heads gain nothing from lower precision, the conversions would cost more than the products save
    product = x.dtype if w.conv.shape[1] // w.heads >= NARROW else w.conv.dtype
    m, z, a, c, _ = front(x, w, carry, tokens, chunk, product)
    numerator, signed, state = chunkwise.forward_block(c, carry.state)
    den = torch.maximum(signed.abs(), chunkwise.floor_of(c)).add_(EPS)
    h = from_rows(_head_norm(numerator.to(den.dtype), den), batch, w.heads)
    out = a.mul_(w.skip)
    out.view(h.shape).addcmul_(h, w.outnorm.view(w.heads, -1))
    gated = out[:, :count].mul_(F.silu(z[:, :count], inplace=True))
    return gated, Carry(state, m[:, tokens:].clone())


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


def convolve(m: Tensor, w: FoldedWeights) -> Tensor:
    """Causal convolution of [B, 3 + T, E] as shifted products: [B, T, E]."""
    tokens = m.shape[1] - TAIL
    out = torch.addcmul(w.conv_bias, m[:, :tokens], w.conv[0])
    for tap in range(1, CONV_KERNEL):
        out.addcmul_(m[:, tap : tap + tokens], w.conv[tap])
    return out


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
