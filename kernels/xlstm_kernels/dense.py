"""The dense (quadratic) form of the mLSTM cell: slow, readable, the truth for the other forms."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-6
"""Added to the normaliser, as in the released network."""


def log_decay(i: Tensor, f: Tensor) -> Tensor:
    """Log weight of source token s in target token t, ``D[t, s]``; minus infinity above the diagonal.

    The forget gates are summed over (s, t] directly, not as a difference of two prefix sums, so that a gate
    of minus infinity is a hard reset and large sums lose no digits.

    Parameters
    ----------
    i, f
        Gate pre-activations (..., S).

    Returns
    -------
    Tensor
        (..., S, S).
    """
    size = f.shape[-1]
    below = torch.ones(size, size, dtype=torch.bool, device=f.device).tril(-1)
    steps = F.logsigmoid(f).unsqueeze(-1).expand(*f.shape, size).masked_fill(~below, 0.0)
    decay = steps.cumsum(-2) + i.unsqueeze(-2)
    return decay.masked_fill(~below.fill_diagonal_(True), -torch.inf)


def mlstm_dense(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool = False) -> Tensor:
    """Run the mLSTM cell over whole sequences, quadratic in their length, differentiable by autograd.

    Parameters
    ----------
    q, k, v
        (B, S, NH, DH), one floating dtype; float64 gives the reference.
    i, f
        Gate pre-activations (B, S, NH). ``f`` may be minus infinity: nothing passes that token.
    reverse
        Scan from the last token to the first.

    Returns
    -------
    Tensor
        h (B, S, NH, DH), the dtype of q.

    Notes
    -----
    ``h_t = sum_s P[t, s] v_s / (max(|sum_s P[t, s]|, exp(-m_t)) + 1e-6)`` with
    ``P[t, s] = q_t . k_s / sqrt(DH) * exp(D[t, s] - m_t)`` and ``m_t = max_s D[t, s]``
    (xLSTM, arXiv 2405.04517, parallel form).
    """
    if reverse:
        return mlstm_dense(q.flip(1), k.flip(1), v.flip(1), i.flip(1), f.flip(1)).flip(1)
    work = torch.float64 if q.dtype == torch.float64 else torch.float32
    query, key, value = (x.to(work).transpose(1, 2) for x in (q, k, v))
    decay = log_decay(i.to(work).transpose(1, 2), f.to(work).transpose(1, 2))
    m = decay.amax(-1, keepdim=True)
    weights = query @ key.mT * q.shape[-1] ** -0.5 * torch.exp(decay - m)
    normaliser = torch.maximum(weights.sum(-1, keepdim=True).abs(), torch.exp(-m))
    h: Tensor = weights @ value / (normaliser + EPS)
    return h.transpose(1, 2).to(q.dtype)
