"""Triton kernels of the Vision-LSTM layer around the cell: all that is not a product with a large weight.

Tokens lie as (B, S, E), the halves m and z of the first projection side by side in (B, S, 2 E). A program
takes a span of tokens in the order of the scan; the three tokens before it are read again, not carried.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from xlstm_kernels.triton_common import positions

NORM_EPS = tl.constexpr(1.0e-5)
TAPS = tl.constexpr(4)


@triton.jit
def load_before(base, t, back, SIZE, columns, stride, INNER, REVERSE: tl.constexpr):
    """Load the tokens ``back`` steps before those at t in the order of the scan, zero outside: [T, E]."""
    t = t - back
    exists = (t >= 0) & (t < SIZE)
    places = tl.where(exists, SIZE - 1 - t if REVERSE else t, 0).to(tl.int64)
    mask = exists[:, None] & (columns[None, :] < INNER)
    return tl.load(base + places[:, None] * stride + columns[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def convolve(m_ptr, t, SIZE, columns, conv_ptr, bias_ptr, INNER, REVERSE: tl.constexpr):
    """Causal convolution of m along the scan, before SiLU. [T, E], float32."""
    known = columns < INNER
    total = tl.load(bias_ptr + columns, mask=known, other=0.0)[None, :]
    for tap in tl.static_range(TAPS):
        weight = tl.load(conv_ptr + tap * INNER + columns, mask=known, other=0.0)
        total += (
            load_before(m_ptr, t, TAPS - 1 - tap, SIZE, columns, 2 * INNER, INNER, REVERSE) * weight[None, :]
        )
    return total


@triton.jit
def silu(x):
    """Return ``x * sigmoid(x)``."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def block_weight(weight_ptr, source, target, known, JOINED):
    """Weights of joined diagonal blocks (E / g, g (in), g (out)) from feature ``source`` to ``target``."""
    address = (target // JOINED) * JOINED * JOINED + (source % JOINED) * JOINED + target % JOINED
    return tl.load(weight_ptr + address, mask=known, other=0.0)


@triton.jit
def layer_fwd_kernel_front(
    both_ptr, conv_ptr, bias_ptr, wq_ptr, wk_ptr, wv_ptr, ga_ptr, gm_ptr, gb_ptr,
    a_ptr, q_ptr, k_ptr, v_ptr, i_ptr, f_ptr,
    SIZE, INNER, JOINED,
    HEADS: tl.constexpr, T: tl.constexpr, E: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Convolution, SiLU, diagonal projections to q, k, v, and both gates, of a span of tokens."""
    b = tl.program_id(1).to(tl.int64)
    places, exists = positions(tl.program_id(0), SIZE, T, REVERSE)
    t = tl.program_id(0) * T + tl.arange(0, T)
    m_ptr = both_ptr + b * SIZE * 2 * INNER
    rows = b * SIZE + places
    gate = tl.arange(0, 2 * HEADS)
    gates = tl.zeros((T, 2 * HEADS), dtype=tl.float32)
    for start in range(0, INNER, E):
        columns = start + tl.arange(0, E)
        known = columns < INNER
        a = silu(convolve(m_ptr, t, SIZE, columns, conv_ptr, bias_ptr, INNER, REVERSE))
        m = load_before(m_ptr, t, 0, SIZE, columns, 2 * INNER, INNER, REVERSE)
        # Sums rather than a product of matrices: eight columns in float32 would fill the registers.
        for n in tl.static_range(2 * HEADS):
            from_a = tl.load(ga_ptr + n * INNER + columns, mask=known, other=0.0)
            from_m = tl.load(gm_ptr + n * INNER + columns, mask=known, other=0.0)
            total = tl.sum(a * from_a[None, :] + m * from_m[None, :], 1)
            gates += tl.where(gate[None, :] == n, total[:, None], 0.0)
        q, k, v = tl.zeros((T, E), tl.float32), tl.zeros((T, E), tl.float32), tl.zeros((T, E), tl.float32)
        # The features of a diagonal block once more, one after the other: they are in cache.
        for n in tl.static_range(HEADS):
            source = columns // HEADS * HEADS + n
            one = silu(convolve(m_ptr, t, SIZE, source, conv_ptr, bias_ptr, INNER, REVERSE))
            q += one * block_weight(wq_ptr, source, columns, known, JOINED)[None, :]
            k += one * block_weight(wk_ptr, source, columns, known, JOINED)[None, :]
            plain = load_before(m_ptr, t, 0, SIZE, source, 2 * INNER, INNER, REVERSE)
            v += plain * block_weight(wv_ptr, source, columns, known, JOINED)[None, :]
        mask = exists[:, None] & known[None, :]
        out = rows[:, None] * INNER + columns[None, :]
        tl.store(a_ptr + out, a.to(a_ptr.dtype.element_ty), mask=mask)
        tl.store(q_ptr + out, q.to(a_ptr.dtype.element_ty), mask=mask)
        tl.store(k_ptr + out, k.to(a_ptr.dtype.element_ty), mask=mask)
        tl.store(v_ptr + out, v.to(a_ptr.dtype.element_ty), mask=mask)
    gates += tl.load(gb_ptr + gate)[None, :]
    head = rows[:, None] * HEADS + gate[None, :] % HEADS
    tl.store(i_ptr + head, gates, mask=exists[:, None] & (gate[None, :] < HEADS))
    tl.store(f_ptr + head, gates, mask=exists[:, None] & (gate[None, :] >= HEADS))


@triton.jit
def normed_head(h, WIDTH, columns):
    """Norm of a head over its features: normalised values and 1 / standard deviation. [T, D], [T, 1]."""
    inside = columns[None, :] < WIDTH
    mean = tl.sum(h, 1) / WIDTH
    centred = tl.where(inside, h - mean[:, None], 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 1) / WIDTH + NORM_EPS)
    return centred * scale[:, None], scale[:, None]


@triton.jit
def layer_fwd_kernel_gate(
    h_ptr, a_ptr, both_ptr, outnorm_ptr, skip_ptr, out_ptr,
    ROWS, INNER, WIDTH, T: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Head norm, skip and gating of a span of tokens of one head: what the last projection takes."""
    head = tl.program_id(1)
    rows = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)
    columns = tl.arange(0, D)
    mask = (rows[:, None] < ROWS) & (columns[None, :] < WIDTH)
    features = head * WIDTH + columns
    place = rows[:, None] * INNER + features[None, :]
    h = tl.load(h_ptr + place, mask=mask, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + place, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(both_ptr + rows[:, None] * 2 * INNER + INNER + features[None, :], mask=mask, other=0.0)
    outnorm = tl.load(outnorm_ptr + features, mask=columns < WIDTH, other=0.0)[None, :]
    skip = tl.load(skip_ptr + features, mask=columns < WIDTH, other=0.0)[None, :]
    normed, _ = normed_head(h, WIDTH, columns)
    out = (normed * outnorm + skip * a) * silu(z.to(tl.float32))
    tl.store(out_ptr + place, out.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def layer_bwd_kernel_gate(
    d_ptr, h_ptr, a_ptr, both_ptr, outnorm_ptr, skip_ptr,
    out_ptr, dh_ptr, da_ptr, dboth_ptr, doutnorm_ptr, dskip_ptr,
    ROWS, INNER, WIDTH, T: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    """Gradient of `layer_fwd_kernel_gate`, whose result it gives again; weights: one sum a program."""
    span, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    rows = span * T + tl.arange(0, T)
    columns = tl.arange(0, D)
    known = columns < WIDTH
    mask = (rows[:, None] < ROWS) & known[None, :]
    features = head * WIDTH + columns
    place = rows[:, None] * INNER + features[None, :]
    gate_place = rows[:, None] * 2 * INNER + INNER + features[None, :]
    d_gated = tl.load(d_ptr + place, mask=mask, other=0.0).to(tl.float32)
    h = tl.load(h_ptr + place, mask=mask, other=0.0).to(tl.float32)
    a = tl.load(a_ptr + place, mask=mask, other=0.0).to(tl.float32)
    z = tl.load(both_ptr + gate_place, mask=mask, other=0.0).to(tl.float32)
    outnorm = tl.load(outnorm_ptr + features, mask=known, other=0.0)[None, :]
    skip = tl.load(skip_ptr + features, mask=known, other=0.0)[None, :]
    normed, scale = normed_head(h, WIDTH, columns)
    before = normed * outnorm + skip * a
    sigmoid = 1.0 / (1.0 + tl.exp(-z))
    d_out = d_gated * z * sigmoid
    d_z = d_gated * before * sigmoid * (1.0 + z * (1.0 - sigmoid))
    d_normed = d_out * outnorm
    along = tl.sum(d_normed * normed, 1)[:, None] / WIDTH
    average = tl.sum(d_normed, 1)[:, None] / WIDTH
    d_h = (d_normed - average - normed * along) * scale
    kind = out_ptr.dtype.element_ty
    tl.store(out_ptr + place, (before * z * sigmoid).to(kind), mask=mask)
    tl.store(dh_ptr + place, d_h.to(kind), mask=mask)
    tl.store(da_ptr + place, d_out * skip, mask=mask)
    tl.store(dboth_ptr + gate_place, d_z.to(kind), mask=mask)
    sums = span * INNER + features
    tl.store(doutnorm_ptr + sums, tl.sum(d_out * normed, 0), mask=known)
    tl.store(dskip_ptr + sums, tl.sum(d_out * a, 0), mask=known)


@triton.jit
def layer_bwd_kernel_front(
    both_ptr, conv_ptr, bias_ptr, wq_ptr, wk_ptr, wv_ptr, ga_ptr, gm_ptr,
    dq_ptr, dk_ptr, dv_ptr, dgates_ptr, da_ptr, dm_ptr,
    SIZE, INNER, JOINED,
    HEADS: tl.constexpr, T: tl.constexpr, E: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Gradient of m but for the convolution, and of what the convolution gives, which takes da's place."""
    b = tl.program_id(2).to(tl.int64)
    places, exists = positions(tl.program_id(0), SIZE, T, REVERSE)
    t = tl.program_id(0) * T + tl.arange(0, T)
    columns = tl.program_id(1) * E + tl.arange(0, E)
    known = columns < INNER
    mask = exists[:, None] & known[None, :]
    rows = b * SIZE + places
    out = rows[:, None] * INNER + columns[None, :]
    d_a = tl.load(da_ptr + out, mask=mask, other=0.0)
    d_m = tl.zeros((T, E), dtype=tl.float32)
    for n in tl.static_range(2 * HEADS):
        upstream = tl.load(dgates_ptr + rows * 2 * HEADS + n, mask=exists, other=0.0)[:, None]
        d_a += upstream * tl.load(ga_ptr + n * INNER + columns, mask=known, other=0.0)[None, :]
        d_m += upstream * tl.load(gm_ptr + n * INNER + columns, mask=known, other=0.0)[None, :]
    for n in tl.static_range(HEADS):
        target = columns // HEADS * HEADS + n
        place = rows[:, None] * INNER + target[None, :]
        d_q = tl.load(dq_ptr + place, mask=mask, other=0.0).to(tl.float32)
        d_k = tl.load(dk_ptr + place, mask=mask, other=0.0).to(tl.float32)
        d_v = tl.load(dv_ptr + place, mask=mask, other=0.0).to(tl.float32)
        d_a += d_q * block_weight(wq_ptr, columns, target, known, JOINED)[None, :]
        d_a += d_k * block_weight(wk_ptr, columns, target, known, JOINED)[None, :]
        d_m += d_v * block_weight(wv_ptr, columns, target, known, JOINED)[None, :]
    m_ptr = both_ptr + b * SIZE * 2 * INNER
    before = convolve(m_ptr, t, SIZE, columns, conv_ptr, bias_ptr, INNER, REVERSE)
    sigmoid = 1.0 / (1.0 + tl.exp(-before))
    tl.store(da_ptr + out, d_a * sigmoid * (1.0 + before * (1.0 - sigmoid)), mask=mask)
    tl.store(dm_ptr + out, d_m, mask=mask)


@triton.jit
def layer_bwd_kernel_conv(
    both_ptr, conv_ptr, da_ptr, dm_ptr, dboth_ptr, dconv_ptr, dbias_ptr,
    SIZE, INNER, T: tl.constexpr, E: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Gradient of m as a whole, and of the convolution's weights: one sum a program."""
    span, b = tl.program_id(0), tl.program_id(2).to(tl.int64)
    places, exists = positions(span, SIZE, T, REVERSE)
    t = span * T + tl.arange(0, T)
    columns = tl.program_id(1) * E + tl.arange(0, E)
    known = columns < INNER
    mask = exists[:, None] & known[None, :]
    tokens = b * SIZE * INNER
    d_m = tl.load(dm_ptr + tokens + places[:, None] * INNER + columns[None, :], mask=mask, other=0.0)
    own = load_before(da_ptr + tokens, t, 0, SIZE, columns, INNER, INNER, REVERSE)
    sums = b * tl.num_programs(0) + span
    for tap in tl.static_range(TAPS):
        weight = tl.load(conv_ptr + tap * INNER + columns, mask=known, other=0.0)
        later = load_before(da_ptr + tokens, t, tap - (TAPS - 1), SIZE, columns, INNER, INNER, REVERSE)
        d_m += later * weight[None, :]
        seen = load_before(both_ptr + 2 * tokens, t, TAPS - 1 - tap, SIZE, columns, 2 * INNER, INNER, REVERSE)
        tl.store(dconv_ptr + (sums * TAPS + tap) * INNER + columns, tl.sum(own * seen, 0), mask=known)
    tl.store(dbias_ptr + sums * INNER + columns, tl.sum(own, 0), mask=known)
    out = dboth_ptr + 2 * tokens + places[:, None] * 2 * INNER + columns[None, :]
    tl.store(out, d_m.to(dboth_ptr.dtype.element_ty), mask=mask)
