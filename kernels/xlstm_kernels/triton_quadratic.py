"""Triton kernels of the cell for short sequences: quadratic, in one pass, in parallel over blocks of tokens.

The gates are scanned first, by a kernel of their own. With the stabilisers known a block of targets sums up
its sources in any order and is never rescaled; there are no states. Backward one kernel walks from a block of
targets over its sources (dq), another from a block of sources over its targets (dk, dv). No atomics: two runs
agree. A program takes whole heads.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from xlstm_kernels.triton_common import (
    EPS,
    after,
    decay_between,
    load_tokens,
    load_upstream,
    positions,
    read_gates,
    store_tokens,
)

PARTS = tl.constexpr(4096.0)  # the fraction of a log forget gate is counted in these, exactly, and a rest


@triton.jit
def mlstm_fwd_quad_gates(
    i_ptr, f_ptr, m_ptr, whole_ptr, part_ptr, si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, LENGTH: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """Stabiliser of every token, and the sum of log forget gates up to it as a whole number and a rest.

    The sums are exact but for the last rounding of the rest, whatever the gates: nothing is lost when a
    difference is taken.
    """
    row = tl.program_id(0).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    places, exists = positions(0, SIZE, LENGTH, REVERSE)
    i, log_f = read_gates(
        i_ptr + b * si_b + head * si_h, f_ptr + b * sf_b + head * sf_h, places, exists, si_s, sf_s
    )
    _, m = tl.associative_scan((log_f, i), 0, after)
    whole = tl.floor(log_f + 0.5)
    part = (log_f - whole) * PARTS
    coarse = tl.floor(part + 0.5)
    fine = tl.cumsum(part - coarse, 0)
    coarse = tl.cumsum(coarse, 0)
    carry = tl.floor(coarse / PARTS + 0.5)
    out = b * SIZE * HEADS + head + places * HEADS
    tl.store(m_ptr + out, m, mask=exists)
    tl.store(whole_ptr + out, tl.cumsum(whole, 0) + carry, mask=exists)
    tl.store(part_ptr + out, (coarse - carry * PARTS + fine) / PARTS, mask=exists)


@triton.jit
def load_sums(whole_ptr, part_ptr, places, exists, HEADS):
    """Sum of log forget gates up to each token, as `mlstm_fwd_quad_gates` left it."""
    whole = tl.load(whole_ptr + places * HEADS, mask=exists, other=0.0)
    return whole, tl.load(part_ptr + places * HEADS, mask=exists, other=0.0)


@triton.jit
def load_source(i_ptr, whole_ptr, part_ptr, places, exists, stride_i, HEADS):
    """Input gate of sources, minus infinity where there is none; sum of log forget gates up to them."""
    i = tl.load(i_ptr + places * stride_i, mask=exists, other=-float("inf")).to(tl.float32)
    whole, part = load_sums(whole_ptr, part_ptr, places, exists, HEADS)
    return i, whole, part


@triton.jit
def mlstm_fwd_quad_output(
    q_ptr, k_ptr, v_ptr, i_ptr, m_ptr, whole_ptr, part_ptr, h_ptr, s_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, si_b, si_s, si_h,
    SIZE, HEADS, WIDTH, scale,
    L: tl.constexpr, D: tl.constexpr, REVERSE: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Output h of a block of targets, and their signed normalisers."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.num_programs(1) - 1 - tl.program_id(1)  # the longest first
    b, head = row // HEADS, row % HEADS
    t, d = tl.arange(0, L), tl.arange(0, D)
    gates = b * SIZE * HEADS + head
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    i_ptr += b * si_b + head * si_h
    m_ptr += gates
    whole_ptr += gates
    part_ptr += gates
    targets, exists = positions(block, SIZE, L, REVERSE)
    q = load_tokens(q_ptr, targets, exists, sq_s, d, sq_d, WIDTH).to(DOT)
    m = tl.load(m_ptr + targets * HEADS, mask=exists, other=float("inf"))
    whole, part = load_sums(whole_ptr, part_ptr, targets, exists, HEADS)
    h = tl.zeros((L, D), dtype=tl.float32)
    signed = tl.zeros((L,), dtype=tl.float32)
    for source in range(block + 1):
        places, found = positions(source, SIZE, L, REVERSE)
        k = load_tokens(k_ptr, places, found, sk_s, d, sk_d, WIDTH).to(DOT)
        v = load_tokens(v_ptr, places, found, sv_s, d, sv_d, WIDTH).to(DOT)
        i, s_whole, s_part = load_source(i_ptr, whole_ptr, part_ptr, places, found, si_s, HEADS)
        weights = tl.dot(q, tl.trans(k), input_precision=PREC) * scale
        weights *= decay_between(block * L + t, whole, part, m, source * L + t, s_whole, s_part, i)
        h += tl.dot(weights.to(DOT), v, input_precision=PREC)
        signed += tl.sum(weights, 1)
    h = h / (tl.maximum(tl.abs(signed), tl.exp(-m)) + EPS)[:, None]
    store_tokens(
        h_ptr + b * SIZE * HEADS * WIDTH + head * WIDTH, targets, exists, HEADS * WIDTH, d, 1, WIDTH, h
    )
    tl.store(s_ptr + gates + targets * HEADS, signed, mask=exists)


@triton.jit
def pair_gradients(q, k, v, dh, decay, inverse, d_norm, scale, PREC: tl.constexpr):
    """Weights P of sources for targets, gradient of the scores, and ``P * dP``: [L (t), L (s)] each."""
    scores = tl.dot(q, tl.trans(k), input_precision=PREC) * scale
    d_weights = tl.dot(dh, tl.trans(v), input_precision=PREC) * inverse[:, None] + d_norm[:, None]
    d_scores = d_weights * decay
    return scores * decay, d_scores, scores * d_scores


@triton.jit
def mlstm_bwd_quad_q(
    q_ptr, k_ptr, v_ptr, i_ptr, dh_ptr, m_ptr, whole_ptr, part_ptr, s_ptr, delta_ptr,
    dq_ptr, row_ptr, step_ptr, before_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, sg_b, sg_s, sg_h, sg_d,
    si_b, si_s, si_h, SIZE, HEADS, WIDTH, scale,
    L: tl.constexpr, D: tl.constexpr, REVERSE: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Gradient dq of a block of targets, and what its pairs give to the gates.

    ``row`` is the sum of ``P * dP`` of each target. A forget gate counts the pairs that it lies between:
    ``step`` holds those whose target is in this block; ``before`` for every earlier block the sum over pairs
    of a target here with a source before that block, of which each gate of that block gets all.
    """
    row = tl.program_id(0).to(tl.int64)
    blocks = tl.num_programs(1)
    block = blocks - 1 - tl.program_id(1)  # the longest first
    b, head = row // HEADS, row % HEADS
    t, d = tl.arange(0, L), tl.arange(0, D)
    gates = b * SIZE * HEADS + head
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    dh_ptr += b * sg_b + head * sg_h
    i_ptr += b * si_b + head * si_h
    m_ptr += gates
    whole_ptr += gates
    part_ptr += gates
    before_ptr += (row * blocks + block) * blocks
    targets, exists = positions(block, SIZE, L, REVERSE)
    q = load_tokens(q_ptr, targets, exists, sq_s, d, sq_d, WIDTH).to(DOT)
    dh = load_tokens(dh_ptr, targets, exists, sg_s, d, sg_d, WIDTH).to(DOT)
    whole, part = load_sums(whole_ptr, part_ptr, targets, exists, HEADS)
    m, inverse, d_norm = load_upstream(m_ptr, s_ptr + gates, delta_ptr + gates, targets, exists, HEADS)
    dq = tl.zeros((L, D), dtype=tl.float32)
    pairs = tl.zeros((L, L), dtype=tl.float32)
    sums = tl.zeros((L,), dtype=tl.float32)
    total = 0.0
    for source in range(block + 1):
        tl.store(before_ptr + source, total)
        places, found = positions(source, SIZE, L, REVERSE)
        k = load_tokens(k_ptr, places, found, sk_s, d, sk_d, WIDTH).to(DOT)
        v = load_tokens(v_ptr, places, found, sv_s, d, sv_d, WIDTH).to(DOT)
        i, s_whole, s_part = load_source(i_ptr, whole_ptr, part_ptr, places, found, si_s, HEADS)
        decay = decay_between(block * L + t, whole, part, m, source * L + t, s_whole, s_part, i)
        _, d_scores, pairs = pair_gradients(q, k, v, dh, decay, inverse, d_norm, scale, PREC)
        dq += tl.dot(d_scores.to(DOT), k, input_precision=PREC)
        here = tl.where(source < block, tl.sum(pairs, 1), 0.0)
        sums += here
        total += tl.sum(here, 0)
    out = b * SIZE * HEADS * WIDTH + head * WIDTH
    store_tokens(dq_ptr + out, targets, exists, HEADS * WIDTH, d, 1, WIDTH, dq * scale)
    inside = tl.where(t[:, None] > t[None, :], tl.cumsum(pairs, 0, reverse=True), 0.0)
    step = tl.cumsum(sums, 0, reverse=True) + tl.sum(inside, 1)
    tl.store(row_ptr + gates + targets * HEADS, sums + tl.sum(pairs, 1), mask=exists)
    tl.store(step_ptr + gates + targets * HEADS, step, mask=exists)


@triton.jit
def mlstm_bwd_quad_kv(
    q_ptr, k_ptr, v_ptr, i_ptr, dh_ptr, m_ptr, whole_ptr, part_ptr, s_ptr, delta_ptr,
    dk_ptr, dv_ptr, column_ptr, after_ptr, before_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, sg_b, sg_s, sg_h, sg_d,
    si_b, si_s, si_h, SIZE, HEADS, WIDTH, scale,
    L: tl.constexpr, D: tl.constexpr, REVERSE: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Gradients dk and dv of a block of sources, and what its pairs give to the gates.

    ``column`` is the sum of ``P * dP`` of each source. ``after`` holds for each forget gate the pairs that it
    lies between whose target is in a later block: of sources in this block and, by ``before``, before it.
    """
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    blocks = tl.num_programs(1)
    b, head = row // HEADS, row % HEADS
    t, d = tl.arange(0, L), tl.arange(0, D)
    gates = b * SIZE * HEADS + head
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    dh_ptr += b * sg_b + head * sg_h
    i_ptr += b * si_b + head * si_h
    m_ptr += gates
    whole_ptr += gates
    part_ptr += gates
    before_ptr += row * blocks * blocks + block
    places, found = positions(block, SIZE, L, REVERSE)
    k = load_tokens(k_ptr, places, found, sk_s, d, sk_d, WIDTH).to(DOT)
    v = load_tokens(v_ptr, places, found, sv_s, d, sv_d, WIDTH).to(DOT)
    i, s_whole, s_part = load_source(i_ptr, whole_ptr, part_ptr, places, found, si_s, HEADS)
    d_key = tl.zeros((L, D), dtype=tl.float32)
    d_value = tl.zeros((L, D), dtype=tl.float32)
    column = tl.zeros((L,), dtype=tl.float32)
    sums = tl.zeros((L,), dtype=tl.float32)
    through = 0.0
    for target in range(block, blocks):
        targets, exists = positions(target, SIZE, L, REVERSE)
        q = load_tokens(q_ptr, targets, exists, sq_s, d, sq_d, WIDTH).to(DOT)
        dh = load_tokens(dh_ptr, targets, exists, sg_s, d, sg_d, WIDTH).to(DOT)
        whole, part = load_sums(whole_ptr, part_ptr, targets, exists, HEADS)
        m, inverse, d_norm = load_upstream(m_ptr, s_ptr + gates, delta_ptr + gates, targets, exists, HEADS)
        decay = decay_between(target * L + t, whole, part, m, block * L + t, s_whole, s_part, i)
        weights, d_scores, pairs = pair_gradients(q, k, v, dh, decay, inverse, d_norm, scale, PREC)
        d_value += tl.dot(tl.trans((weights * inverse[:, None]).to(DOT)), dh, input_precision=PREC)
        d_key += tl.dot(tl.trans(d_scores.to(DOT)), q, input_precision=PREC)
        here = tl.sum(pairs, 0)
        column += here
        sums += tl.where(target > block, here, 0.0)
        through += tl.load(before_ptr + target * blocks, mask=target > block, other=0.0)
    out = b * SIZE * HEADS * WIDTH + head * WIDTH
    store_tokens(dk_ptr + out, places, found, HEADS * WIDTH, d, 1, WIDTH, d_key * scale)
    store_tokens(dv_ptr + out, places, found, HEADS * WIDTH, d, 1, WIDTH, d_value)
    earlier = tl.sum(tl.where(t[:, None] > t[None, :], sums[None, :], 0.0), 1)
    tl.store(column_ptr + gates + places * HEADS, column, mask=found)
    tl.store(after_ptr + gates + places * HEADS, earlier + through, mask=found)
