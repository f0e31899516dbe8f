"""Triton kernels of the cell, forward.

A sequence is cut into segments of several chunks of L tokens. A segment's state is summed up in parallel,
segments are scanned, then every segment walks through its chunks with the state in registers. Where there are
programs enough, a sequence is one segment: one kernel. Heads wider than a tile are cut along the width of v.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from xlstm_kernels.triton_common import (
    EPS,
    ends,
    last_of,
    load_gates,
    load_state,
    load_tokens,
    log_write,
    pair_decay,
    positions,
    stabiliser,
    state_after,
    store_state,
    store_tokens,
)


@triton.jit
def mlstm_fwd_kernel_segment(
    k_ptr, v_ptr, i_ptr, f_ptr, state_ptr, level_ptr,
    sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """State that a segment adds, scaled by its own stabiliser; that stabiliser and the log decay."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tl.arange(0, DK), tile * DV + tl.arange(0, DV)
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    matrix = tl.zeros((DK, DV), dtype=tl.float32)
    vector = tl.zeros((DK,), dtype=tl.float32)
    m = -float("inf")
    decay = 0.0
    for chunk in range(segment * CHUNKS, tl.minimum((segment + 1) * CHUNKS, tl.cdiv(SIZE, L))):
        places, exists = positions(chunk, SIZE, L, REVERSE)
        k = load_tokens(k_ptr, places, exists, sk_s, dk, sk_d, WIDTH)
        v = load_tokens(v_ptr, places, exists, sv_s, dv, sv_d, WIDTH).to(DOT)
        i, _, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        end_whole, end_part = ends(whole, part, t, L)
        written = tl.max(log_write(i, whole, part, end_whole, end_part), 0)
        m_end = tl.maximum(m + end_whole + end_part, written)
        matrix, vector = state_after(
            matrix, vector, k, v, i, whole, part, end_whole, end_part, m, m_end, DOT, PREC
        )
        m = m_end
        decay += end_whole + end_part
    place = row * tl.num_programs(1) + segment
    state_ptr += place * (WIDTH * WIDTH + WIDTH)
    store_state(state_ptr, dk, dv, WIDTH, matrix, vector, tile == 0)
    if tile == 0:
        tl.store(level_ptr + 2 * place, m)
        tl.store(level_ptr + 2 * place + 1, decay)


@triton.jit
def mlstm_fwd_kernel_scan(state_ptr, level_ptr, start_ptr, SEGMENTS, ELEMENTS, BLOCK: tl.constexpr):
    """Scan the segments: replace what each adds by the state before it, and give the stabiliser before it."""
    row = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < ELEMENTS
    state_ptr += row * SEGMENTS * ELEMENTS
    state = tl.zeros((BLOCK,), dtype=tl.float32)
    m = -float("inf")
    for segment in range(SEGMENTS):
        place = row * SEGMENTS + segment
        own, decay = tl.load(level_ptr + 2 * place), tl.load(level_ptr + 2 * place + 1)
        added = tl.load(state_ptr + segment * ELEMENTS + element, mask=inside, other=0.0)
        tl.store(state_ptr + segment * ELEMENTS + element, state, mask=inside)
        if tl.program_id(0) == 0:
            tl.store(start_ptr + place, m)
        m_new = tl.maximum(m + decay, own)
        state = state * tl.exp(m + decay - m_new) + added * tl.exp(own - m_new)
        m = m_new


@triton.jit
def mlstm_fwd_kernel_output(
    q_ptr, k_ptr, v_ptr, i_ptr, f_ptr, h_ptr, m_ptr, s_ptr, state_ptr, start_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d,
    si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS, scale,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Walk through a segment: h, and the stabiliser and signed normaliser of every token."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tl.arange(0, DK), tile * DV + tl.arange(0, DV)
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    h_ptr += b * SIZE * HEADS * WIDTH + head * WIDTH
    m_ptr += b * SIZE * HEADS + head
    s_ptr += b * SIZE * HEADS + head
    if STARTS:
        place = row * tl.num_programs(1) + segment
        matrix, vector = load_state(state_ptr + place * (WIDTH * WIDTH + WIDTH), dk, dv, WIDTH)
        m_in = tl.load(start_ptr + place)
    else:
        matrix = tl.zeros((DK, DV), dtype=tl.float32)
        vector = tl.zeros((DK,), dtype=tl.float32)
        m_in = -float("inf")
    for chunk in range(segment * CHUNKS, tl.minimum((segment + 1) * CHUNKS, tl.cdiv(SIZE, L))):
        places, exists = positions(chunk, SIZE, L, REVERSE)
        q = load_tokens(q_ptr, places, exists, sq_s, dk, sq_d, WIDTH)
        k = load_tokens(k_ptr, places, exists, sk_s, dk, sk_d, WIDTH)
        v = load_tokens(v_ptr, places, exists, sv_s, dv, sv_d, WIDTH).to(DOT)
        i, log_f, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        m = stabiliser(i, log_f, whole, part, m_in)
        weights = tl.dot(q.to(DOT), tl.trans(k.to(DOT)), input_precision=PREC) * scale
        weights = weights * pair_decay(i, whole, part, m, t)
        read = tl.exp(whole + part + m_in - m) * scale
        q_read = q.to(tl.float32) * read[:, None]
        h = tl.dot(weights.to(DOT), v, input_precision=PREC)
        h += tl.dot(q_read.to(DOT), matrix.to(DOT), input_precision=PREC)
        signed = tl.sum(weights, 1) + tl.sum(q_read * vector[None, :], 1)
        h = h / (tl.maximum(tl.abs(signed), tl.exp(-m)) + EPS)[:, None]
        store_tokens(h_ptr, places, exists, HEADS * WIDTH, dv, 1, WIDTH, h)
        if tile == 0:
            tl.store(m_ptr + places * HEADS, m, mask=exists)
            tl.store(s_ptr + places * HEADS, signed, mask=exists)
        end_whole, end_part = ends(whole, part, t, L)
        m_end = last_of(m, t, L)
        matrix, vector = state_after(
            matrix, vector, k, v, i, whole, part, end_whole, end_part, m_in, m_end, DOT, PREC
        )
        m_in = m_end
