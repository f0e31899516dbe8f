"""The gates of the mLSTM cell: stabiliser and decays of one block of tokens, in float64.

Everything here has the size of the gates (one number per token and head), DH times smaller than the tokens,
so float64 costs little and takes the cancellation out of extreme gates.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RESET = -1.0e4
"""Stands for minus infinity in the logarithm of a forget gate: exp(RESET) is zero in float64, yet
differences of sums of it stay exact enough."""

FACTOR_RANGE = 60.0
"""Decays are split into a factor of the target and one of the source while both are in exp(+-FACTOR_RANGE)."""


class Gates(NamedTuple):
    """Scanned gates of one block: N sequences (batch and heads), G chunks of L tokens.

    ``local`` is the sum of log forget gates from the chunk's start, inclusive; ``m`` the stabiliser
    ``m_t = max(m_(t-1) + log f_t, i_t)``; ``source`` the token of the block whose input gate ``m_t`` goes
    back to, -1 for one before the block; ``start`` and ``end`` the stabiliser before and at the end of each
    chunk; ``total`` the sum of log forget gates from the block's start to each chunk's end.
    """

    i: Tensor  # [N, G, L]
    local: Tensor  # [N, G, L]
    m: Tensor  # [N, G, L]
    source: Tensor  # [N, G * L]
    start: Tensor  # [N, G]
    end: Tensor  # [N, G]
    total: Tensor  # [N, G]

    def chunk_decay(self) -> Tensor:
        """Decay from the state after chunk j to that after chunk c, [N, G (c), G (j)], zero for j > c."""
        level = self.total - self.end
        decay = level.unsqueeze(-1) - level.unsqueeze(-2)
        return torch.exp(decay).tril_()

    def block_decay(self, m_in: Tensor) -> Tensor:
        """Decay from the state before the block to the state after each chunk, [N, G]."""
        return torch.exp(self.total + m_in.unsqueeze(-1) - self.end)


def scan_gates(i: Tensor, f: Tensor, m_in: Tensor, chunk: int) -> Gates:
    """Scan the gates of one block.

    Parameters
    ----------
    i, f
        Gate pre-activations [N, G * L].
    m_in
        Stabiliser before the block [N], float64; minus infinity at the start of a sequence.
    chunk
        L.
    """
    rows = i.shape[0]
    i = i.double().clamp_min(RESET)
    log_f = F.logsigmoid(f.double()).clamp_min_(RESET)
    total = log_f.cumsum(-1)
    best, source = (i - total).cummax(-1)
    before = m_in.unsqueeze(-1)
    source = source.masked_fill_(before > best, -1)
    m = total + torch.maximum(best, before)
    m_chunks, ends = m.view(rows, -1, chunk), total.view(rows, -1, chunk)[..., -1]
    end = m_chunks[..., -1].contiguous()
    start = torch.cat([before, end[:, :-1]], -1)
    local = log_f.view(rows, -1, chunk).cumsum(-1)
    return Gates(i.view(rows, -1, chunk), local, m_chunks, source, start, end, ends.contiguous())


def split_decay(gates: Gates) -> tuple[Tensor, Tensor, Tensor] | None:
    """Write the decay inside chunks as a product, ``exp(D[t, s] - m_t) = target_t * source_s``.

    Returns
    -------
    tuple or None
        target [N, G, L], source [N, G, L] and their logarithmic reference [N, G] (the state before a chunk
        counts with ``exp(start - reference)``); None for gates so extreme that a factor would leave float32.
    """
    reference = torch.maximum(gates.start, gates.i[..., 0])
    target = gates.local - gates.m + reference.unsqueeze(-1)
    source = gates.i - gates.local - reference.unsqueeze(-1)
    for factor in (target, source):
        low, high = torch.aminmax(factor)
        if low < -FACTOR_RANGE or high > FACTOR_RANGE:
            return None
    return target.exp_(), source.exp_(), reference


def full_decay(gates: Gates) -> Tensor:
    """Decay inside chunks, ``exp(D[t, s] - m_t)`` [N, G, L (t), L (s)], zero above the diagonal."""
    target = (gates.local - gates.m).unsqueeze(-1)
    source = (gates.i - gates.local).unsqueeze(-2)
    return (target + source).exp_().tril_()


def stabiliser_gradient(gates: Gates, dm: Tensor, carry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Lead the gradient of the stabiliser back to the gates it came from.

    Parameters
    ----------
    dm
        Gradient of each m_t [K, N, G * L], float64 (overwritten).
    carry
        Gradient of the stabiliser after the block [K, N].

    Returns
    -------
    tuple of Tensor
        ``dm`` with the carry in, the gradient it leaves at each source's input gate [K, N, G * L], and the
        gradient of the stabiliser before the block [K, N].
    """
    dm[..., -1] += carry
    kinds, rows, size = dm.shape
    landed = dm.new_zeros(kinds, rows, size + 1)
    landed.scatter_add_(-1, (gates.source + 1).expand(kinds, rows, size), dm)
    return dm, landed[..., 1:], landed[..., 0]
