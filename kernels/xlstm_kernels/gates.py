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
"""Decays are split into factors of target and source while both are within exp(+-FACTOR_RANGE)."""


class Gates(NamedTuple):
    """Scanned gates of one block: N sequences (batch and heads), G chunks of L tokens."""

    i: Tensor
    """Input gates [N, G, L]."""
    local: Tensor
    """Sum of log forget gates from the chunk's start, inclusive [N, G, L]."""
    m: Tensor
    """Stabiliser ``m_t = max(m_(t-1) + log f_t, i_t)`` [N, G, L]."""
    bounds: Tensor
    """Stabiliser before the block and at the end of each chunk [N, G + 1]."""
    totals: Tensor
    """Sum of log forget gates from the block's start to where ``bounds`` are [N, G + 1]."""
    source: Tensor
    """Token whose input gate each m_t goes back to, counted from 1; 0 for one before the block [N, G * L]."""

    @property
    def start(self) -> Tensor:
        """Stabiliser before each chunk [N, G, 1]."""
        return self.bounds[:, :-1, None]

    @property
    def end(self) -> Tensor:
        """Stabiliser at the end of each chunk [N, G, 1]."""
        return self.bounds[:, 1:, None]

    def decays(self) -> Tensor:
        """Decay from the state at bound j to that at bound c, [N, G + 1 (c), G + 1 (j)], zero for j > c."""
        level = self.totals - self.bounds
        decay = level.unsqueeze(-1) - level.unsqueeze(-2)
        decay.diagonal(dim1=-2, dim2=-1).zero_()  # where the state before the block does not exist: inf - inf
        return decay.exp_().tril_()


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
    rows, size = i.shape
    i = i.double().clamp_min_(RESET) if i.dtype != torch.float64 else i.clamp_min(RESET)
    log_f = F.logsigmoid(f.double()).clamp_min_(RESET)
    totals = log_f.new_zeros(rows, size + 1)
    total = torch.cumsum(log_f, -1, out=totals[:, 1:])
    bounds, source = torch.cat([m_in.unsqueeze(-1), i - total], -1).cummax(-1)
    bounds += totals
    m = bounds[:, 1:].reshape(rows, -1, chunk)
    local = log_f.view(rows, -1, chunk).cumsum(-1)
    return Gates(i.view(rows, -1, chunk), local, m, bounds[:, ::chunk], totals[:, ::chunk], source[:, 1:])


def split_decay(gates: Gates) -> tuple[Tensor, Tensor, Tensor] | None:
    """Write the decay inside chunks as a product, ``exp(D[t, s] - m_t) = target_t * source_s``.

    Returns
    -------
    tuple or None
        target [N, G, L], source [N, G, L] and their logarithmic reference [N, G, 1] (the state before a chunk
        counts with ``exp(start - reference)``); None for gates so extreme that a factor would leave float32.
    """
    reference = torch.maximum(gates.start, gates.i[..., :1])
    factors = torch.stack([gates.local - gates.m + reference, gates.i - gates.local - reference])
    low, high = torch.aminmax(factors)
    if low.item() < -FACTOR_RANGE or high.item() > FACTOR_RANGE:
        return None
    target, source = factors.exp_()
    return target, source, reference


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
        Gradient of each m_t [2, N, G * L], float64 (overwritten): what the log forget gates use, and what the
        input gates use (the same but for rounding, see `xlstm_kernels.chunkwise.backward_block`).
    carry
        Gradient of the stabiliser after the block [2, N].

    Returns
    -------
    tuple of Tensor
        Gradient of the log forget gates and of the input gates [N, G * L], and of the stabiliser before the
        block [2, N].
    """
    dm[..., -1] += carry
    _, rows, size = dm.shape
    landed = dm.new_zeros(2, rows, size + 1).scatter_add_(-1, gates.source.expand(2, rows, size), dm)
    own = gates.source == torch.arange(1, size + 1, device=dm.device)
    passing = suffix_sum(dm[0] - landed[0, :, 1:]).masked_fill_(own, 0.0)
    return passing, landed[1, :, 1:], landed[..., 0]


def suffix_sum(x: Tensor) -> Tensor:
    """Sum from each element of the last axis to its end."""
    return x.flip(-1).cumsum(-1).flip(-1)
