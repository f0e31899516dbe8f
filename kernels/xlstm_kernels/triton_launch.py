"""Launch of the Triton kernels of the cell: sizes of tiles, chunks and segments by shape."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_kernels import triton_backward, triton_forward, triton_quadratic
from xlstm_kernels.dense import EPS
from xlstm_kernels.gates import scan_gates, stabiliser_gradient

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

PROGRAMS = 512
"""Programs to aim at when a sequence is cut into segments: a few per multiprocessor."""

SHORT = 256
"""Up to this many tokens the quadratic kernels run whatever the head width; see `quadratic`."""

SCAN_BLOCK = 256

WAVE = 64 if torch.version.hip else 32
"""Threads that a GPU runs as one: Triton counts programs in these."""

LOW = {torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
"""Dtypes of tokens of 16 bit, multiplied as they are."""


class Plan(NamedTuple):
    """How one call is cut up."""

    chunk: int
    segments: int
    chunks: int  # in a segment
    total: int  # chunks in all
    wide: int  # head width, padded to a power of two
    tile: int
    tiles: int
    options: dict[str, Any]


def quadratic(size: int, width: int) -> bool:
    """Whether sequences of ``size`` tokens take the quadratic kernels: the one place where that is decided.

    Counted, not measured: a token costs the quadratic form size * width multiplications, the chunkwise one
    4 * width**2 where chunks are as long as heads are wide. Below `SHORT` either form is done in a few
    microseconds, and the quadratic one has no states to write and more programs to run at a time.
    """
    return size <= max(SHORT, 4 * width)


def plan(q: Tensor, precision: str, *, backward: bool) -> Plan:
    """Cut up the work for tokens (B, S, NH, DH) shaped like q.

    Tiles and chunks are the largest that compile for sm_90 with next to no spills (see `compile_ahead`).
    """
    batch, size, heads, width = q.shape
    wide = max(16, triton.next_power_of_2(width))
    low = q.dtype in LOW
    tile, chunk = _tile(wide, low=low, backward=backward)
    tiles = triton.cdiv(width, tile)
    chunk = min(chunk, max(16, triton.next_power_of_2(size)))
    count = triton.cdiv(size, chunk)
    segments = max(1, min(count, PROGRAMS // (batch * heads * tiles)))
    chunks = triton.cdiv(count, segments)
    options = {
        **_products(q.dtype, precision),
        "L": chunk,
        "num_warps": (128 if wide < 64 else 256) // WAVE,
        "num_stages": 2 if wide <= 64 and low and not backward else 1,
    }
    return Plan(chunk, triton.cdiv(count, chunks), chunks, count, wide, tile, tiles, options)


def _products(dtype: torch.dtype, precision: str) -> dict[str, Any]:
    """How tokens are multiplied."""
    dot = tl.float32 if INTERPRETED else LOW.get(dtype, tl.float32)
    return {"DOT": dot, "PREC": "tf32" if dtype in LOW else precision}


def _tile(wide: int, *, low: bool, backward: bool) -> tuple[int, int]:
    """Width of a tile of a head and length of a chunk; ``low`` for 16-bit tokens."""
    if low:
        if backward:
            return min(wide, 32), 32 if wide <= 128 else 16
        return (wide, 64) if wide <= 64 else (64 if wide <= 128 else 32, 32)
    if backward:
        return (min(wide, 32), 32) if wide <= 32 else (16, 16)
    return (min(wide, 32), 32) if wide <= 64 else (16, 16)


def forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Cell over (B, S, NH, DH): h, stabiliser and signed normaliser (B, S, NH) in float32."""
    run = quadratic_forward if quadratic(q.shape[1], q.shape[3]) else chunkwise_forward
    return run(q, k, v, i, f, reverse, precision)


def chunkwise_forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `forward` with cost linear in S."""
    batch, size, heads, width = q.shape
    p = plan(q, precision, backward=False)
    grid = (p.tiles, p.segments, batch * heads)
    h = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    m, signed = (torch.empty(i.shape, dtype=torch.float32, device=q.device) for _ in range(2))
    state, start = _segment_states(k, v, i, f, reverse, p) if p.segments > 1 else (m, m)
    triton_forward.mlstm_fwd_kernel_output[grid](
        q, k, v, i, f, h, m, signed, state, start,
        *q.stride(), *k.stride(), *v.stride(), *i.stride(), *f.stride(),
        size, heads, width, p.chunks, width**-0.5,
        DK=p.wide, DV=p.tile, REVERSE=reverse, STARTS=p.segments > 1, **p.options,
    )  # fmt: skip
    return h, m, signed


def _segment_states(
    k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, p: Plan
) -> tuple[Tensor, Tensor]:
    """State and stabiliser before every segment."""
    batch, size, heads, width = k.shape
    rows, elements = batch * heads, width * width + width
    state = torch.empty(rows, p.segments, elements, dtype=torch.float32, device=k.device)
    level = torch.empty(rows, p.segments, 2, dtype=torch.float32, device=k.device)
    start = torch.empty(rows, p.segments, dtype=torch.float32, device=k.device)
    triton_forward.mlstm_fwd_kernel_segment[p.tiles, p.segments, rows](
        k, v, i, f, state, level,
        *k.stride(), *v.stride(), *i.stride(), *f.stride(),
        size, heads, width, p.chunks,
        DK=p.wide, DV=p.tile, REVERSE=reverse, **p.options,
    )  # fmt: skip
    triton_forward.mlstm_fwd_kernel_scan[triton.cdiv(elements, SCAN_BLOCK), rows](
        state, level, start, p.segments, elements, BLOCK=SCAN_BLOCK, num_warps=4
    )
    return state, start


def backward(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, m: Tensor, signed: Tensor,
    reverse: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of `forward`: dq, dk, dv in the dtype of the tokens, di, df in that of the gates."""
    run = quadratic_backward if quadratic(q.shape[1], q.shape[3]) else chunkwise_backward
    return run(dh, q, k, v, i, f, h, m, signed, reverse, precision)


def chunkwise_backward(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, m: Tensor, signed: Tensor,
    reverse: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of `forward`, from m and signed of either form, with cost linear in S."""
    batch, size, heads, width = q.shape
    p = plan(q, precision, backward=True)
    several = p.segments > 1
    rows, elements = batch * heads, width * width + width
    grid = (p.tiles, p.segments, rows)
    delta = torch.linalg.vecdot(dh.float(), h.float())
    gate_strides = (*i.stride(), *f.stride())
    shape = (size, heads, width, p.chunks, p.total)
    start, level = _segment_states(k, v, i, f, reverse, p) if several else (m, m)
    states = torch.empty(rows, p.total, elements, dtype=torch.float32, device=q.device)
    triton_backward.mlstm_bwd_kernel_states[grid](
        k, v, i, f, m, level, start, states, *k.stride(), *v.stride(), *gate_strides, *shape,
        DK=p.wide, DV=p.tile, REVERSE=reverse, STARTS=several, **p.options,
    )  # fmt: skip
    grad = m
    if several:
        grad = torch.empty(rows, p.segments, elements, dtype=torch.float32, device=q.device)
        decay = torch.empty(rows, p.segments, dtype=torch.float32, device=q.device)
        triton_backward.mlstm_bwd_kernel_segment[grid](
            q, f, i, dh, m, level, signed, delta, grad, decay,
            *q.stride(), *dh.stride(), *gate_strides, *shape,
            width**-0.5, DK=p.wide, DV=p.tile, REVERSE=reverse, **p.options,
        )  # fmt: skip
        triton_backward.mlstm_bwd_kernel_scan[triton.cdiv(elements, SCAN_BLOCK), rows](
            grad, decay, p.segments, elements, BLOCK=SCAN_BLOCK, num_warps=4
        )
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    sums = torch.zeros(4, p.tiles, *i.shape, dtype=torch.float32, device=q.device)
    triton_backward.mlstm_bwd_kernel_qk[grid](
        q, k, v, i, f, dh, m, level, signed, delta, states, grad, dq, dk, dv, *sums,
        *q.stride(), *k.stride(), *v.stride(), *dh.stride(), *gate_strides, *shape, i.numel(), width**-0.5,
        DK=p.tile, DV=p.wide, REVERSE=reverse, STARTS=several, WITH_DV=p.tiles == 1, **p.options,
    )  # fmt: skip
    if p.tiles > 1:
        triton_backward.mlstm_bwd_kernel_v[grid](
            q, k, i, f, dh, m, level, signed, delta, grad, dv,
            *q.stride(), *k.stride(), *dh.stride(), *gate_strides, *shape, width**-0.5,
            DK=p.wide, DV=p.tile, REVERSE=reverse, STARTS=several, **p.options,
        )  # fmt: skip
    di, df = gate_gradients(i, f, m, signed, delta, sums, reverse)
    return dq, dk, dv, di, df


class QuadraticPlan(NamedTuple):
    """How one call of the quadratic kernels is cut up."""

    blocks: int
    tokens: dict[str, Any]  # options of the kernels that take tokens


def quadratic_plan(q: Tensor, precision: str, reverse: bool, *, backward: bool) -> QuadraticPlan:
    """Cut up the work for tokens (B, S, NH, DH) shaped like q, as `plan` does."""
    size, width = q.shape[1], q.shape[3]
    wide = max(16, triton.next_power_of_2(width))
    block = 32 if q.dtype in LOW or wide <= 64 else 16
    block = min(block, max(16, triton.next_power_of_2(size)))
    tokens = {
        **_products(q.dtype, precision),
        "L": block,
        "D": wide,
        "REVERSE": reverse,
        "num_warps": (128 if wide < 64 else 256) // WAVE,
        "num_stages": 2 if wide <= 64 and q.dtype in LOW and not backward else 1,
    }
    return QuadraticPlan(triton.cdiv(size, block), tokens)


def scan_levels(i: Tensor, f: Tensor, reverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Stabiliser of every token, and the sum of log forget gates in two parts (B, S, NH)."""
    batch, size, heads = i.shape
    m, whole, part = torch.empty(3, *i.shape, dtype=torch.float32, device=i.device)
    triton_quadratic.mlstm_fwd_quad_gates[(batch * heads,)](
        i, f, m, whole, part, *i.stride(), *f.stride(), size, heads,
        LENGTH=max(16, triton.next_power_of_2(size)), REVERSE=reverse, num_warps=4,
    )  # fmt: skip
    return m, whole, part


def quadratic_forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool, precision: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Run `forward` in one pass over all pairs of tokens, S up to a thousand or so."""
    batch, size, heads, width = q.shape
    p = quadratic_plan(q, precision, reverse, backward=False)
    levels = scan_levels(i, f, reverse)
    h = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    signed = torch.empty(i.shape, dtype=torch.float32, device=q.device)
    triton_quadratic.mlstm_fwd_quad_output[batch * heads, p.blocks](
        q, k, v, i, *levels, h, signed, *q.stride(), *k.stride(), *v.stride(), *i.stride(),
        size, heads, width, width**-0.5, **p.tokens,
    )  # fmt: skip
    return h, levels[0], signed


def quadratic_backward(
    dh: Tensor, q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, h: Tensor, m: Tensor, signed: Tensor,
    reverse: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradient of `quadratic_forward`."""
    batch, size, heads, width = q.shape
    p = quadratic_plan(q, precision, reverse, backward=True)
    rows = batch * heads
    levels = scan_levels(i, f, reverse)
    delta = torch.linalg.vecdot(dh.float(), h.float())
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    row, column, step, later = sums = torch.empty(4, *i.shape, dtype=torch.float32, device=q.device)
    before = torch.empty(rows, p.blocks, p.blocks, dtype=torch.float32, device=q.device)
    inputs = (q, k, v, i, dh, *levels, signed, delta)
    strides = (*q.stride(), *k.stride(), *v.stride(), *dh.stride(), *i.stride())
    shape = (size, heads, width, width**-0.5)
    grid = (rows, p.blocks)
    triton_quadratic.mlstm_bwd_quad_q[grid](*inputs, dq, row, step, before, *strides, *shape, **p.tokens)
    triton_quadratic.mlstm_bwd_quad_kv[grid](
        *inputs, dk, dv, column, later, before, *strides, *shape, **p.tokens
    )
    di, df = gate_gradients(i, f, m, signed, delta, sums.unsqueeze(1), reverse)
    return dq, dk, dv, di, df


def gate_gradients(
    i: Tensor, f: Tensor, m: Tensor, signed: Tensor, delta: Tensor, sums: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Finish the gradients of the gates from sums of ``P * dP``; see `chunkwise.backward_block`.

    ``sums`` are (4, tiles, B, S, NH): over targets, over sources, and in two parts over the pairs that a
    forget gate lies between.
    """
    batch, size, heads = i.shape

    def ordered(x: Tensor) -> Tensor:
        return (x.flip(-2) if reverse else x).transpose(-1, -2).flatten(-3, -2)

    row, column, step, shifted = ordered(sums.sum(1)).double()
    flipped = ordered(f)
    gates = scan_gates(
        ordered(i), flipped, m.new_full((batch * heads,), -torch.inf, dtype=torch.float64), size
    )
    floor = torch.exp(-ordered(m))
    norm, output = ordered(signed).abs(), ordered(delta)
    den = torch.maximum(norm, floor) + EPS
    below = torch.where(norm > floor, 0.0, output * (1.0 - EPS / den))
    dm = torch.stack([-EPS * (output / den).double(), below.double() - row])
    passing, landed, _ = stabiliser_gradient(gates, dm, dm.new_zeros(2, batch * heads))
    di = column + landed
    df = (step + shifted + passing) * torch.sigmoid(-flipped.double())

    def back(x: Tensor, like: Tensor) -> Tensor:
        x = x.view(batch, heads, size).transpose(1, 2)
        return (x.flip(1) if reverse else x).to(like.dtype).contiguous()

    return back(di, i), back(df, f)
