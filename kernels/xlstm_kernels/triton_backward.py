"""Triton kernels of the cell, backward.

The stabilisers of the forward pass are read back, so nothing is scanned again: states before every chunk are
summed up once more, the gradient of the state walks the segments backwards in registers. No atomics: two runs
agree. Heads wider than a tile are cut along the key's width; what the tiles give for the gates is summed
afterwards.
"""

# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

from xlstm_kernels.triton_common import (
    ends,
    load_gates,
    load_state,
    load_tokens,
    load_upstream,
    log_write,
    pair_decay,
    positions,
    state_after,
    store_state,
    store_tokens,
)


@triton.jit
def level_before(
    m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr
):
    """Stabiliser that the state before a chunk is scaled by; minus infinity before the first.

    Where a segment starts it is the one its state came with: the last token's may differ by rounding.
    """
    before = tl.minimum(chunk * L, SIZE) - 1
    first = tl.maximum(before, 0)
    place = (SIZE - 1 - first if REVERSE else first).to(tl.int64)
    m = tl.where(before < 0, -float("inf"), tl.load(m_ptr + place * HEADS))
    if STARTS:
        starts = (chunk % CHUNKS == 0) & (chunk * L < SIZE)
        m = tl.where(starts, tl.load(level_ptr + chunk // CHUNKS, mask=starts, other=0.0), m)
    return m


@triton.jit
def bounds(
    m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr
):
    """Stabiliser before a chunk and at its end, as the states there are scaled."""
    m_in = level_before(m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L, REVERSE, STARTS)
    return m_in, level_before(m_ptr, level_ptr, chunk + 1, CHUNKS, SIZE, HEADS, L, REVERSE, STARTS)


@triton.jit
def mlstm_bwd_kernel_states(
    k_ptr, v_ptr, i_ptr, f_ptr, m_ptr, level_ptr, start_ptr, state_ptr,
    sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS, COUNT,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """State before every chunk."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tl.arange(0, DK), tile * DV + tl.arange(0, DV)
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    if STARTS:
        level_ptr += row * tl.num_programs(1)
    m_ptr += b * SIZE * HEADS + head
    elements = WIDTH * WIDTH + WIDTH
    if STARTS:
        start_ptr += (row * tl.num_programs(1) + segment) * elements
        matrix, vector = load_state(start_ptr, dk, dv, WIDTH)
    else:
        matrix = tl.zeros((DK, DV), dtype=tl.float32)
        vector = tl.zeros((DK,), dtype=tl.float32)
    for chunk in range(segment * CHUNKS, tl.minimum((segment + 1) * CHUNKS, COUNT)):
        store_state(state_ptr + (row * COUNT + chunk) * elements, dk, dv, WIDTH, matrix, vector, tile == 0)
        places, exists = positions(chunk, SIZE, L, REVERSE)
        k = load_tokens(k_ptr, places, exists, sk_s, dk, sk_d, WIDTH)
        v = load_tokens(v_ptr, places, exists, sv_s, dv, sv_d, WIDTH).to(DOT)
        i, _, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        m_in, m_end = bounds(m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L, REVERSE, STARTS)
        end_whole, end_part = ends(whole, part, t, L)
        matrix, vector = state_after(
            matrix, vector, k, v, i, whole, part, end_whole, end_part, m_in, m_end, DOT, PREC
        )


@triton.jit
def mlstm_bwd_kernel_segment(
    q_ptr, f_ptr, i_ptr, dh_ptr, m_ptr, level_ptr, s_ptr, delta_ptr, grad_ptr, decay_ptr,
    sq_b, sq_s, sq_h, sq_d, sg_b, sg_s, sg_h, sg_d, si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS, COUNT, scale,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Gradient that a segment adds to the state before it, and its decay from end to start."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tl.arange(0, DK), tile * DV + tl.arange(0, DV)
    q_ptr += b * sq_b + head * sq_h
    dh_ptr += b * sg_b + head * sg_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    level_ptr += row * tl.num_programs(1)
    m_ptr += b * SIZE * HEADS + head
    s_ptr += b * SIZE * HEADS + head
    delta_ptr += b * SIZE * HEADS + head
    matrix = tl.zeros((DK, DV), dtype=tl.float32)
    vector = tl.zeros((DK,), dtype=tl.float32)
    decay = 1.0
    for chunk in range(segment * CHUNKS, tl.minimum((segment + 1) * CHUNKS, COUNT)):
        places, exists = positions(chunk, SIZE, L, REVERSE)
        q = load_tokens(q_ptr, places, exists, sq_s, dk, sq_d, WIDTH).to(tl.float32)
        dh = load_tokens(dh_ptr, places, exists, sg_s, dv, sg_d, WIDTH).to(tl.float32)
        _, _, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        m, inverse, d_norm = load_upstream(m_ptr, s_ptr, delta_ptr, places, exists, HEADS)
        m_in, m_end = bounds(m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L, REVERSE, True)
        read = tl.exp(whole + part + m_in - m) * (scale * decay)
        q = q * read[:, None]
        d_num = (dh * inverse[:, None]).to(DOT)
        matrix += tl.dot(tl.trans(q.to(DOT)), d_num, input_precision=PREC)
        vector += tl.sum(q * d_norm[:, None], 0)
        end_whole, end_part = ends(whole, part, t, L)
        decay *= tl.exp(end_whole + end_part + m_in - m_end)
    place = row * tl.num_programs(1) + segment
    store_state(grad_ptr + place * (WIDTH * WIDTH + WIDTH), dk, dv, WIDTH, matrix, vector, tile == 0)
    if tile == 0:
        tl.store(decay_ptr + place, decay)


@triton.jit
def mlstm_bwd_kernel_scan(grad_ptr, decay_ptr, SEGMENTS, ELEMENTS, BLOCK: tl.constexpr):
    """Scan the segments backwards: replace what each adds by the gradient of the state after it."""
    row = tl.program_id(1).to(tl.int64)
    element = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = element < ELEMENTS
    grad_ptr += row * SEGMENTS * ELEMENTS
    grad = tl.zeros((BLOCK,), dtype=tl.float32)
    for step in range(SEGMENTS):
        segment = SEGMENTS - 1 - step
        decay = tl.load(decay_ptr + row * SEGMENTS + segment)
        added = tl.load(grad_ptr + segment * ELEMENTS + element, mask=inside, other=0.0)
        tl.store(grad_ptr + segment * ELEMENTS + element, grad, mask=inside)
        grad = grad * decay + added


@triton.jit
def mlstm_bwd_kernel_qk(
    q_ptr, k_ptr, v_ptr, i_ptr, f_ptr, dh_ptr, m_ptr, level_ptr, s_ptr, delta_ptr, state_ptr, grad_ptr,
    dq_ptr, dk_ptr, dv_ptr, row_ptr, column_ptr, step_ptr, shifted_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sv_b, sv_s, sv_h, sv_d, sg_b, sg_s, sg_h, sg_d,
    si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS, COUNT, GATES, scale,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr,
    WITH_DV: tl.constexpr, DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Walk a segment backwards: dq, dk, sums of ``P * dP`` for the gates; dv where one tile is the head."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tile * DK + tl.arange(0, DK), tl.arange(0, DV)
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    v_ptr += b * sv_b + head * sv_h
    dh_ptr += b * sg_b + head * sg_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    if STARTS:
        level_ptr += row * tl.num_programs(1)
    tokens = b * SIZE * HEADS * WIDTH + head * WIDTH
    gates = b * SIZE * HEADS + head
    elements = WIDTH * WIDTH + WIDTH
    if STARTS:
        grad_ptr += (row * tl.num_programs(1) + segment) * elements
        d_matrix, d_vector = load_state(grad_ptr, dk, dv, WIDTH)
    else:
        d_matrix = tl.zeros((DK, DV), dtype=tl.float32)
        d_vector = tl.zeros((DK,), dtype=tl.float32)
    first = segment * CHUNKS
    last = tl.minimum(first + CHUNKS, COUNT) - 1
    for step in range(last - first + 1):
        chunk = last - step
        places, exists = positions(chunk, SIZE, L, REVERSE)
        q = load_tokens(q_ptr, places, exists, sq_s, dk, sq_d, WIDTH)
        k = load_tokens(k_ptr, places, exists, sk_s, dk, sk_d, WIDTH)
        v = load_tokens(v_ptr, places, exists, sv_s, dv, sv_d, WIDTH).to(DOT)
        dh = load_tokens(dh_ptr, places, exists, sg_s, dv, sg_d, WIDTH).to(tl.float32)
        i, _, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        m, inverse, d_norm = load_upstream(
            m_ptr + gates, s_ptr + gates, delta_ptr + gates, places, exists, HEADS
        )
        m_in, m_end = bounds(m_ptr + gates, level_ptr, chunk, CHUNKS, SIZE, HEADS, L, REVERSE, STARTS)
        end_whole, end_part = ends(whole, part, t, L)
        matrix, vector = load_state(state_ptr + (row * COUNT + chunk) * elements, dk, dv, WIDTH)

        decay = pair_decay(i, whole, part, m, t)
        d_num = (dh * inverse[:, None]).to(DOT)
        scores = tl.dot(q.to(DOT), tl.trans(k.to(DOT)), input_precision=PREC) * scale
        weights = scores * decay
        d_scores = (tl.dot(d_num, tl.trans(v), input_precision=PREC) + d_norm[:, None]) * decay
        pairs = scores * d_scores

        read = tl.exp(whole + part + m_in - m) * scale
        write = tl.exp(log_write(i, whole, part, end_whole, end_part) - m_end)
        across = tl.exp(end_whole + end_part + m_in - m_end)
        dq = tl.dot(d_num, tl.trans(matrix.to(DOT)), input_precision=PREC) + d_norm[:, None] * vector[None, :]
        dq = dq * read[:, None]
        from_state = tl.sum(dq * q.to(tl.float32), 1)
        dq += tl.dot(d_scores.to(DOT), k.to(DOT), input_precision=PREC) * scale
        d_key = tl.dot(v, tl.trans(d_matrix.to(DOT)), input_precision=PREC) + d_vector[None, :]
        d_key = d_key * write[:, None]
        to_state = tl.sum(d_key * k.to(tl.float32), 1)
        d_key += tl.dot(tl.trans(d_scores.to(DOT)), q.to(DOT), input_precision=PREC) * scale
        store_tokens(dq_ptr + tokens, places, exists, HEADS * WIDTH, dk, 1, WIDTH, dq)
        store_tokens(dk_ptr + tokens, places, exists, HEADS * WIDTH, dk, 1, WIDTH, d_key)
        if WITH_DV:
            k_write = (k.to(tl.float32) * write[:, None]).to(DOT)
            d_value = tl.dot(tl.trans(weights.to(DOT)), d_num, input_precision=PREC)
            d_value += tl.dot(k_write, d_matrix.to(DOT), input_precision=PREC)
            store_tokens(dv_ptr + tokens, places, exists, HEADS * WIDTH, dv, 1, WIDTH, d_value)

        through = across * (tl.sum(tl.sum(d_matrix * matrix, 1), 0) + tl.sum(d_vector * vector, 0))
        later = tl.sum(tl.where(t[:, None] > t[None, :], tl.cumsum(pairs, 1), 0.0), 0)
        out = tile.to(tl.int64) * GATES + gates + places * HEADS
        tl.store(row_ptr + out, tl.sum(pairs, 1) + from_state, mask=exists)
        tl.store(column_ptr + out, tl.sum(pairs, 0) + to_state, mask=exists)
        tl.store(step_ptr + out, tl.cumsum(from_state, 0, reverse=True) + through, mask=exists)
        # pairs whose source is at or before a token count for the forget gate of the next one
        next_out = out - HEADS if REVERSE else out + HEADS
        follows = (t < L - 1) & (chunk * L + t + 1 < SIZE)
        tl.store(shifted_ptr + next_out, later + tl.cumsum(to_state, 0), mask=follows)

        q_read = q.to(tl.float32) * read[:, None]
        d_matrix = d_matrix * across + tl.dot(tl.trans(q_read.to(DOT)), d_num, input_precision=PREC)
        d_vector = d_vector * across + tl.sum(q_read * d_norm[:, None], 0)


@triton.jit
def mlstm_bwd_kernel_v(
    q_ptr, k_ptr, i_ptr, f_ptr, dh_ptr, m_ptr, level_ptr, s_ptr, delta_ptr, grad_ptr, dv_ptr,
    sq_b, sq_s, sq_h, sq_d, sk_b, sk_s, sk_h, sk_d, sg_b, sg_s, sg_h, sg_d,
    si_b, si_s, si_h, sf_b, sf_s, sf_h,
    SIZE, HEADS, WIDTH, CHUNKS, COUNT, scale,
    L: tl.constexpr, DK: tl.constexpr, DV: tl.constexpr, REVERSE: tl.constexpr, STARTS: tl.constexpr,
    DOT: tl.constexpr, PREC: tl.constexpr,
):  # fmt: skip
    """Walk a segment backwards: dv, where a head is wider than a tile."""
    tile, segment, row = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    b, head = row // HEADS, row % HEADS
    t = tl.arange(0, L)
    dk, dv = tl.arange(0, DK), tile * DV + tl.arange(0, DV)
    q_ptr += b * sq_b + head * sq_h
    k_ptr += b * sk_b + head * sk_h
    dh_ptr += b * sg_b + head * sg_h
    i_ptr += b * si_b + head * si_h
    f_ptr += b * sf_b + head * sf_h
    if STARTS:
        level_ptr += row * tl.num_programs(1)
    dv_ptr += b * SIZE * HEADS * WIDTH + head * WIDTH
    m_ptr += b * SIZE * HEADS + head
    s_ptr += b * SIZE * HEADS + head
    delta_ptr += b * SIZE * HEADS + head
    if STARTS:
        grad_ptr += (row * tl.num_programs(1) + segment) * (WIDTH * WIDTH + WIDTH)
        d_matrix = load_state(grad_ptr, dk, dv, WIDTH)[0]
    else:
        d_matrix = tl.zeros((DK, DV), dtype=tl.float32)
    first = segment * CHUNKS
    last = tl.minimum(first + CHUNKS, COUNT) - 1
    for step in range(last - first + 1):
        chunk = last - step
        places, exists = positions(chunk, SIZE, L, REVERSE)
        q = load_tokens(q_ptr, places, exists, sq_s, dk, sq_d, WIDTH)
        k = load_tokens(k_ptr, places, exists, sk_s, dk, sk_d, WIDTH)
        dh = load_tokens(dh_ptr, places, exists, sg_s, dv, sg_d, WIDTH).to(tl.float32)
        i, _, whole, part = load_gates(i_ptr, f_ptr, places, exists, si_s, sf_s)
        m, inverse, _ = load_upstream(m_ptr, s_ptr, delta_ptr, places, exists, HEADS)
        m_in, m_end = bounds(m_ptr, level_ptr, chunk, CHUNKS, SIZE, HEADS, L, REVERSE, STARTS)
        end_whole, end_part = ends(whole, part, t, L)
        decay = pair_decay(i, whole, part, m, t)
        weights = tl.dot(q.to(DOT), tl.trans(k.to(DOT)), input_precision=PREC) * scale * decay
        d_num = (dh * inverse[:, None]).to(DOT)
        write = tl.exp(log_write(i, whole, part, end_whole, end_part) - m_end)
        k_write = (k.to(tl.float32) * write[:, None]).to(DOT)
        d_value = tl.dot(tl.trans(weights.to(DOT)), d_num, input_precision=PREC)
        d_value += tl.dot(k_write, d_matrix.to(DOT), input_precision=PREC)
        store_tokens(dv_ptr, places, exists, HEADS * WIDTH, dv, 1, WIDTH, d_value)
        read = tl.exp(whole + part + m_in - m) * scale
        q_read = (q.to(tl.float32) * read[:, None]).to(DOT)
        across = tl.exp(end_whole + end_part + m_in - m_end)
        d_matrix = d_matrix * across + tl.dot(tl.trans(q_read), d_num, input_precision=PREC)
