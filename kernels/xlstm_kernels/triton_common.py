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
    address = base + places[:, None] * stride_s + columns[None, :].to(tl.int64) * stride_d
    return tl.load(address, mask=mask, other=0.0)


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
def read_gates(i_base, f_base, places, exists, stride_i, stride_f):
    """Input gate and log forget gate; what leaves a state as it is where there is no token."""
    i = tl.load(i_base + places * stride_i, mask=exists, other=-float("inf")).to(tl.float32)
    f = tl.load(f_base + places * stride_f, mask=exists, other=float("inf")).to(tl.float32)
    return i, tl.maximum(log_sigmoid(f), RESET)


@triton.jit
def load_gates(i_base, f_base, places, exists, stride_i, stride_f):
    """Input gate, log forget gate, and the sum of these from the chunk's start as a whole number and a rest.

    The whole part is exact, so that differences of strong gates keep their digits.
    """
    i, log_f = read_gates(i_base, f_base, places, exists, stride_i, stride_f)
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
def decay_between(t, whole, part, m, s, s_whole, s_part, i):
    """Decay from sources s to targets t, ``exp(D[t, s] - m_t)`` [L (t), L (s)], zero for s after t."""
    gap = (part[:, None] - s_part[None, :]) + (i[None, :] - m[:, None])
    gap += whole[:, None] - s_whole[None, :]
    return tl.exp(tl.where(t[:, None] >= s[None, :], gap, -float("inf")))


@triton.jit
def pair_decay(i, whole, part, m, t):
    """Decay inside a chunk, ``exp(D[t, s] - m_t)`` [L (t), L (s)], zero above the diagonal."""
    return decay_between(t, whole, part, m, t, whole, part, i)


@triton.jit
def load_upstream(m_ptr, s_ptr, delta_ptr, places, exists, HEADS):
    """Stabiliser, 1 / denominator, and the gradient of the signed normaliser.

    Where there is no token the stabiliser is infinite, so that all its weights are zero.
    """
    m = tl.load(m_ptr + places * HEADS, mask=exists, other=float("inf"))
    signed = tl.load(s_ptr + places * HEADS, mask=exists, other=0.0)
    delta = tl.load(delta_ptr + places * HEADS, mask=exists, other=0.0)
    floor = tl.exp(-m)
    inverse = 1.0 / (tl.maximum(tl.abs(signed), floor) + EPS)
    sign = tl.where(signed > floor, 1.0, tl.where(signed < -floor, -1.0, 0.0))
    return m, inverse, -delta * inverse * sign


@triton.jit
def load_state(base, dk, dv, WIDTH):
    """Load a state, or its gradient: columns dv of the matrix [DK, DV] and the normaliser's vector [DK]."""
    inside = (dk[:, None] < WIDTH) & (dv[None, :] < WIDTH)
    matrix = tl.load(base + dk[:, None] * WIDTH + dv[None, :], mask=inside, other=0.0)
    return matrix, tl.load(base + WIDTH * WIDTH + dk, mask=dk < WIDTH, other=0.0)


@triton.jit
def store_state(base, dk, dv, WIDTH, matrix, vector, WITH_VECTOR):
    """Store what `load_state` loads, the vector where asked."""
    inside = (dk[:, None] < WIDTH) & (dv[None, :] < WIDTH)
    tl.store(base + dk[:, None] * WIDTH + dv[None, :], matrix, mask=inside)
    tl.store(base + WIDTH * WIDTH + dk, vector, mask=(dk < WIDTH) & WITH_VECTOR)


@triton.jit
def state_after(
    matrix, vector, k, v, i, whole, part, end_whole, end_part, m_in, m_end,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """State after a chunk, from that before it; either is scaled by its stabiliser."""
    keep = tl.exp(end_whole + end_part + m_in - m_end)
    k = k.to(tl.float32) * tl.exp(log_write(i, whole, part, end_whole, end_part) - m_end)[:, None]
    matrix = matrix * keep + tl.dot(tl.trans(k.to(DOT)), v, input_precision=PREC)
    return matrix, vector * keep + tl.sum(k, 0)
