"""Weights of a Vision-LSTM layer in the form that the fused layers compute with."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_kernels.weights import ViLWeights

BLOCK = 32
"""Diagonal blocks are joined to blocks of at most this size: a small dense product beats many tiny ones."""


class FoldedWeights(NamedTuple):
    """Weights made ready; the gates do not read q, k and v but what these are projected from."""

    norm: Tensor  # (C,)
    proj_up: Tensor  # (2 E, C)
    conv: Tensor  # (4, E)
    conv_bias: Tensor  # (E,)
    q: Tensor  # (E / g, g (in), g (out))
    k: Tensor  # (E / g, g (in), g (out))
    v: Tensor  # (E / g, g (in), g (out))
    gates_a: Tensor  # (2 NH, E) both gates of the convolved tokens
    gates_m: Tensor  # (2 NH, E) both gates of the tokens before the convolution
    gates_bias: Tensor  # (2 NH,)
    outnorm: Tensor  # (E,)
    skip: Tensor  # (E,)
    proj_down: Tensor  # (C, E)

    @property
    def heads(self) -> int:
        """Number of heads."""
        return self.gates_bias.shape[0] // 2


def fold(w: ViLWeights, work: torch.dtype, product: torch.dtype) -> FoldedWeights:
    """Fold the weights: small ones to dtype ``work``, those of the two large projections to ``product``."""
    heads = w.heads
    inner = w.conv_bias.shape[0]
    gates = torch.cat([w.igate_weight, w.fgate_weight]).to(work).view(2 * heads, 3, inner // heads, heads)
    through_q, through_k, through_v = (
        torch.einsum("ghi,hij->ghj", gates[:, part], weight.to(work)).flatten(1)
        for part, weight in enumerate((w.q, w.k, w.v))
    )
    return FoldedWeights(
        norm=(1.0 + w.norm).to(product),
        proj_up=w.proj_up.to(product),
        conv=w.conv_weight[:, 0].t().to(work).contiguous(),
        conv_bias=w.conv_bias.to(work),
        q=join_blocks(w.q.to(work), inner // heads),
        k=join_blocks(w.k.to(work), inner // heads),
        v=join_blocks(w.v.to(work), inner // heads),
        gates_a=through_q + through_k,
        gates_m=through_v,
        gates_bias=torch.cat([w.igate_bias, w.fgate_bias]).to(work),
        outnorm=(1.0 + w.outnorm).to(work),
        skip=w.skip.to(work),
        proj_down=w.proj_down.to(product),
    )


def join_blocks(weight: Tensor, width: int) -> Tensor:
    """Join diagonal blocks (E / b, b (out), b (in)) to larger ones (E / g, g (in), g (out)).

    g divides the head width where b does, else E.
    """
    count, size, _ = weight.shape
    whole = width // size if width % size == 0 else count
    joined = max(n for n in range(1, max(1, BLOCK // size) + 1) if whole % n == 0)
    blocks = weight.mT.view(count // joined, joined, size, size)
    out = blocks.new_zeros(count // joined, joined, size, joined, size)
    out.diagonal(dim1=1, dim2=3).copy_(blocks.permute(0, 2, 3, 1))
    return out.view(count // joined, joined * size, joined * size)
