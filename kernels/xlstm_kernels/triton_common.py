"""Pieces that the Triton kernels of the cell share: tokens by index, the scan of a chunk's gates."""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

RESET = tl.constexpr(-1.0e4)  # stands for the logarithm of a forget gate of zero, see gates.py
EPS = tl.constexpr(1.0e-6)


@triton.jit
def after(decay, m, next_decay, next_m):
    """Join two spans of gates, for scans: their log decay, and the stabiliser at their end."""
    return decay + next_decay, tl.maximum(m + next_decay, next_m)


@triton.jit
def positions(chunk, SIZE, L: tl.constexpr, REVERSE: tl.constexpr):
    """Places in memory of the tokens of a chunk, in the order of the scan, and which of them exist."""
    t = chunk * L + tl.arange(0, L)
    exists = t < SIZE
    return tl.where(exists, SIZE - 1 - t if REVERSE else t, 0).to(tl.int64), exists


@triton.jit
def load_tokens(base, places, exists, stride_s, columns, stride_d, WIDTH):
    """Load tokens, [L, D]; zero outside."""
    mask = exists[:, None] & (columns[None, :] < WIDTH)
    return tl.load(base + places[:, None] * stride_s + columns[None, :] * stride_d, mask=mask, other=0.0)


@triton.jit
def store_tokens(base, places, exists, stride_s, columns, stride_d, WIDTH, values):
    """Store tokens, [L, D]."""
    mask = exists[:, None] & (columns[None, :] < WIDTH)
    address = base + places[:, None] * stride_s + columns[None, :] * stride_d
    tl.store(address, values.to(base.dtype.element_ty), mask=mask)


@triton.jit
def log_sigmoid(f):
    """Logarithm of the sigmoid, to float32 precision: the hardware's logarithm is too coarse near 1."""
    x = tl.exp(-tl.abs(f))
    z = x / (2.0 + x)
    w = z * z
    series = 1.0 / 15.0 + w * (1.0 / 17.0)
    series = 1.0 / 11.0 + w * (1.0 / 13.0 + w * series)
    series = 1.0 / 7.0 + w * (1.0 / 9.0 + w * series)
    series = 1.0 / 3.0 + w * (1.0 / 5.0 + w * series)
    return tl.minimum(f, 0.0) - 2.0 * z * (1.0 + w * series)


@triton.jit
def load_gates(i_base, f_base, places, exists, stride_i, stride_f):
    """Input gate, log forget gate, and the sum of these from the chunk's start as a whole number and a rest.

    The whole part is exact, so that differences of strong gates keep their digits.
    """
    i = tl.load(i_base + places * stride_i, mask=exists, other=-float("inf")).to(tl.float32)
    f = tl.load(f_base + places * stride_f, mask=exists, other=float("inf")).to(tl.float32)
    log_f = tl.maximum(log_sigmoid(f), RESET)
    whole = tl.floor(log_f + 0.5)
    return i, log_f, tl.cumsum(whole, 0), tl.cumsum(log_f - whole, 0)


@triton.jit
def stabiliser(i, log_f, whole, part, m_in):
    """Stabiliser of a chunk's tokens: scanned, so that no sum over gates is taken and given back."""
    _, own = tl.associative_scan((log_f, i), 0, after)
    return tl.maximum(own, whole + part + m_in)


@triton.jit
def ends(whole, part, t, L: tl.constexpr):
    """Sum of log forget gates over the whole chunk, in its two parts."""
    return last_of(whole, t, L), last_of(part, t, L)


@triton.jit
def log_write(i, whole, part, end_whole, end_part):
    """Logarithm of what a token is worth in the state after the chunk."""
    return (end_whole - whole) + ((end_part - part) + i)


@triton.jit
def last_of(x, t, L: tl.constexpr):
    """Return the last element of a vector of the chunk."""
    return tl.sum(tl.where(t == L - 1, x, 0.0), 0)


@triton.jit
def pair_decay(i, whole, part, m, t):
    """Decay inside a chunk, ``exp(D[t, s] - m_t)`` [L (t), L (s)], zero above the diagonal."""
    gap = (whole[:, None] - whole[None, :]) + ((part[:, None] - part[None, :]) + (i[None, :] - m[:, None]))
    return tl.exp(tl.where(t[:, None] >= t[None, :], gap, -float("inf")))
