"""The chunkwise form of the mLSTM cell in plain torch: cost linear in the length, exact gradient, any shape.

A sequence is cut into blocks, a block into G chunks of L tokens. Inside a chunk the cell is a small masked
product; chunks exchange states (DH x DH and a normaliser DH), all of a block at once; blocks pass the last state on.
Notation in shapes: N = batch * heads, T = G * L tokens of the block, D = head width.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_kernels.dense import EPS
from xlstm_kernels.gates import Gates, full_decay, scan_gates, split_decay, stabiliser_gradient

BLOCK_ELEMENTS = 1 << 18
"""Target size of one tensor of a block (N * T * D), so that a block's tensors stay in a core's cache."""


class State(NamedTuple):
    """What a block hands to the next: matrix state, normaliser state, stabiliser (or their gradients)."""

    matrix: Tensor  # [N, D, D]
    vector: Tensor  # [N, D]
    m: Tensor  # [N]


def initial_state(rows: int, width: int, like: Tensor) -> State:
    """State before the first token."""
    m = torch.full((rows,), -torch.inf, dtype=torch.float64, device=like.device)
    return State(like.new_zeros(rows, width, width), like.new_zeros(rows, width), m)


def zero_gradient(state: State) -> State:
    """Gradient of the state after the last token; that of m is kept twice, [2, N], see `backward_block`."""
    m = torch.zeros_like(state.m)
    return State(torch.zeros_like(state.matrix), torch.zeros_like(state.vector), torch.stack([m, m]))


class Chunks(NamedTuple):
    """A block made ready for products: decays folded into q and k, states before every chunk."""

    gates: Gates
    q: Tensor  # [N, G, L, D] scaled; times the target factor where decays are split
    k: Tensor  # [N, G, L, D] times the source factor where decays are split
    v: Tensor  # [N, G, L, D]
    decay: Tensor | None  # [N, G, L, L] where decays are not split
    q_state: Tensor  # [N, G, L, D] what reads the state
    k_state: Tensor  # [N, G, L, D] what writes the state
    read: Tensor  # [N, G, 1] the state before a chunk, as q_state reads it
    write: Tensor  # [N, G, 1] what k_state writes, as the state after the chunk counts it
    q_factor: Tensor  # [N, G, L, 1] from q to the intra-chunk q
    k_factor: Tensor  # [N, G, L, 1]
    q_state_factor: Tensor  # [N, G, L, 1]
    k_state_factor: Tensor  # [N, G, L, 1]


def prepare(tokens: tuple[Tensor, ...], m_in: Tensor, chunk: int) -> Chunks:
    """Scan the gates of a block and fold them into q and k: tokens are q, k, v [N, T, D], i, f [N, T]."""
    q, k, v, i, f = tokens
    gates = scan_gates(i, f, m_in, chunk)
    rows, _, width = q.shape
    scale = width**-0.5
    q, k, v = (x.view(rows, -1, chunk, width) for x in (q, k, v))
    work = q.dtype
    factors = split_decay(gates)
    if factors is not None:
        target, source, reference = factors
        q_factor = (target * scale).to(work).unsqueeze(-1)
        k_factor = source.to(work).unsqueeze(-1)
        read = torch.exp(gates.start - reference).to(work)
        ends = gates.local[..., -1] + reference - gates.end
        scaled_q, scaled_k = q * q_factor, k * k_factor
        return Chunks(
            gates, scaled_q, scaled_k, v.contiguous(), None, scaled_q, scaled_k,
            read.unsqueeze(-1), ends.exp().to(work).unsqueeze(-1), q_factor, k_factor, q_factor, k_factor,
        )  # fmt: skip
    reads = torch.exp(gates.local + gates.start.unsqueeze(-1) - gates.m).to(work).unsqueeze(-1) * scale
    writes = gates.local[..., -1:] - gates.local + gates.i - gates.end.unsqueeze(-1)
    writes = writes.exp().to(work).unsqueeze(-1)
    one = q.new_ones(rows, q.shape[1], 1)
    scales = q.new_full((rows, q.shape[1], chunk, 1), scale)
    return Chunks(
        gates, (q * scale).contiguous(), k.contiguous(), v.contiguous(), full_decay(gates).to(work),
        q * reads, k * writes, one, one, scales, torch.ones_like(scales), reads, writes,
    )  # fmt: skip


def chunk_states(c: Chunks, state: State) -> tuple[Tensor, Tensor, State]:
    """States before every chunk, matrix [N, G, D, D] and normaliser [N, G, D], and the state after the block."""
    work = c.q.dtype
    rows, groups, _, width = c.q.shape
    updates = torch.empty(rows, groups, width * width + width, dtype=work, device=c.q.device)
    matrices = updates[..., : width * width].view(rows, groups, width, width)
    torch.mul(c.k_state.mT @ c.v, c.write.unsqueeze(-1), out=matrices)
    torch.mul(c.k_state.sum(-2), c.write, out=updates[..., width * width :])
    before = torch.cat([state.matrix.flatten(1), state.vector], -1).unsqueeze(1)
    carried = c.gates.block_decay(state.m).to(work).unsqueeze(-1) * before
    after = torch.baddbmm(carried, c.gates.chunk_decay().to(work), updates)
    states = torch.cat([before, after[:, :-1]], 1)
    last = State(
        after[:, -1, : width * width].view(rows, width, width),
        after[:, -1, width * width :],
        c.gates.end[:, -1],
    )
    matrix = states[..., : width * width].view(rows, groups, width, width)
    return matrix, states[..., width * width :], last


def intra_weights(c: Chunks) -> Tensor:
    """Weights of the tokens of a chunk for one another, P [N, G, L (t), L (s)]."""
    weights = c.q @ c.k.mT
    return weights.tril_() if c.decay is None else weights.mul_(c.decay)


def forward_block(c: Chunks, state: State) -> tuple[Tensor, Tensor, State]:
    """Cell over one block: h [N, T, D], the signed normaliser [N, T] and the state after the block."""
    weights = intra_weights(c)
    matrix, vector, last = chunk_states(c, state)
    matrix, vector = matrix * c.read.unsqueeze(-1), vector * c.read
    h = weights @ c.v
    h += c.q_state @ matrix
    normaliser = weights.sum(-1).add_((c.q_state @ vector.unsqueeze(-1)).squeeze(-1))
    h /= denominator(normaliser, c.gates.m).unsqueeze(-1)
    return h.flatten(1, 2), normaliser.flatten(1, 2), last


def denominator(normaliser: Tensor, m: Tensor) -> Tensor:
    """Return ``max(|s|, exp(-m)) + eps``; infinite, so that h is 0, where exp(-m) overflows."""
    return torch.maximum(normaliser.abs(), torch.exp(-m).to(normaliser.dtype)).add_(EPS)


def backward_block(
    c: Chunks, state: State, dh: Tensor, h: Tensor, normaliser: Tensor, f: Tensor, grad: State
) -> tuple[tuple[Tensor, ...], State]:
    """Gradient of one block.

    Parameters
    ----------
    c, state
        The block as prepared, and the state before it.
    dh, h
        Output gradient and output [N, T, D].
    normaliser
        Signed normaliser [N, T].
    f
        Forget gate pre-activations [N, T].
    grad
        Gradient of the state after the block.

    Returns
    -------
    tuple
        (dq, dk, dv [N, T, D], di, df [N, T] float64) and the gradient of the state before the block.

    Notes
    -----
    The stabiliser drops out of h but for eps, so its gradient is ``eps * d_den``: that is what ``df`` uses. It is
    also minus the sum of a whole row of ``P * dP``, which carries the very rounding errors that the dominating
    source of the row collects: led back to that source's input gate it cancels them, so ``di`` uses this.
    """
    rows, groups, chunk = c.q.shape[:3]
    dh, h, normaliser = (x.reshape(rows, groups, chunk, *x.shape[2:]) for x in (dh, h, normaliser))
    den = denominator(normaliser, c.gates.m)
    output = (dh * h).sum(-1)
    d_den = -output / den
    d_num = dh / den.unsqueeze(-1)
    above = normaliser.abs() > torch.exp(-c.gates.m).to(normaliser.dtype)
    d_norm = (d_den * normaliser.sign() * above).unsqueeze(-1)

    matrix, vector, _ = chunk_states(c, state)
    d_matrix, d_vector, grad_in, through = _state_gradients(c, state, matrix, vector, d_num, d_norm, grad)
    read_vector = (vector * c.read).unsqueeze(-2)
    dq_state = (d_num @ (matrix * c.read.unsqueeze(-1)).mT).addcmul_(d_norm, read_vector)
    dk_state = (c.v @ d_matrix.mT).add_(d_vector.unsqueeze(-2))

    weights = intra_weights(c)
    dv = weights.mT @ d_num
    dv += c.k_state @ d_matrix
    d_weights = (d_num @ c.v.mT).add_(d_norm)
    pairs = weights.mul_(d_weights)
    d_scores = d_weights.tril_() if c.decay is None else d_weights.mul_(c.decay)
    dq, dk = d_scores @ c.k, d_scores.mT @ c.q
    from_state = (dq_state * c.q_state).sum(-1).double()
    to_state = (dk_state * c.k_state).sum(-1).double()
    if c.decay is None:
        dq, dk = dq.add_(dq_state).mul_(c.q_factor), dk.add_(dk_state).mul_(c.k_factor)
    else:
        dq = dq.mul_(c.q_factor).addcmul_(dq_state, c.q_state_factor)
        dk = dk.addcmul_(dk_state, c.k_state_factor)

    row = pairs.sum(-1).double() + from_state
    below = torch.where(above, 0.0, output * (1.0 - EPS / den))
    dm = torch.stack([EPS * d_den.double(), below - row]).flatten(2)
    dm, landed, m_carry = stabiliser_gradient(c.gates, dm, grad.m)
    di = (pairs.sum(-2).double() + to_state).flatten(1) + landed[1]
    steps = _decay_gradient(pairs, from_state, to_state) + through.unsqueeze(-1)
    own = torch.arange(dm.shape[-1], device=dm.device) == c.gates.source
    steps = steps.flatten(1) + suffix_sum(dm[0] - landed[0]).masked_fill_(own, 0.0)
    df = steps * torch.sigmoid(-f.double())
    return (dq.flatten(1, 2), dk.flatten(1, 2), dv.flatten(1, 2), di, df), grad_in._replace(m=m_carry)


def suffix_sum(x: Tensor) -> Tensor:
    """Sum from each element of the last axis to its end."""
    return x.flip(-1).cumsum(-1).flip(-1)


def _decay_gradient(pairs: Tensor, from_state: Tensor, to_state: Tensor) -> Tensor:
    """Gradient of each log forget gate, but for what passes the whole chunk.

    A gate r decays every pair (t, s) with ``s < r <= t``. Those pairs alone are added up: the difference of the
    sums over all targets and over all sources would lose everything where gates are strong.

    Parameters
    ----------
    pairs
        ``P * dP`` inside the chunk [N, G, L (t), L (s)].
    from_state, to_state
        The same for pairs of a target with the state before the chunk, and of a source with the state after it
        [N, G, L].
    """
    size = pairs.shape[-1]
    earlier = torch.ones(size, size, dtype=pairs.dtype, device=pairs.device).triu_(1)
    inside = (pairs @ earlier).tril_().sum(-2).double()
    inside += suffix_sum(from_state)
    inside[..., 1:] += to_state[..., :-1].cumsum(-1)
    return inside


def _state_gradients(
    c: Chunks, state: State, matrix: Tensor, vector: Tensor, d_num: Tensor, d_norm: Tensor, grad: State
) -> tuple[Tensor, Tensor, State, Tensor]:
    """Gradients that pass through the states.

    Returns
    -------
    tuple
        Gradient of what every chunk writes, matrix [N, G, D, D] and vector [N, G, D]; gradient of the state
        before the block; and of the log decay of the state across every chunk [N, G], float64.
    """
    work = c.q.dtype
    rows, groups, _, width = c.q.shape
    square = width * width
    direct = torch.empty(rows, groups, square + width, dtype=work, device=c.q.device)
    d_read = c.q_state.mT @ d_num
    torch.mul(d_read, c.read.unsqueeze(-1), out=direct[..., :square].view(rows, groups, width, width))
    torch.mul((c.q_state * d_norm).sum(-2), c.read, out=direct[..., square:])
    after = torch.cat([grad.matrix.flatten(1), grad.vector], -1)
    decay = c.gates.chunk_decay().to(work)
    d_after = decay[:, -1, :].unsqueeze(-1) * after.unsqueeze(1)
    d_after[:, :-1].baddbmm_(decay[:, :-1, :-1].mT, direct[:, 1:])
    into = c.gates.block_decay(state.m).to(work)
    before = into[:, -1:] * after + direct[:, 0]
    before += torch.bmm(into[:, None, :-1], direct[:, 1:]).squeeze(1)
    states = torch.cat([matrix.flatten(2), vector], -1)
    through = (d_after * states).sum(-1).double() * torch.exp(
        c.gates.local[..., -1] + c.gates.start - c.gates.end
    )
    writes = d_after * c.write
    grad_in = State(before[:, :square].view(rows, width, width), before[:, square:], grad.m)
    return writes[..., :square].view(rows, groups, width, width), writes[..., square:], grad_in, through


def block_plan(rows: int, size: int, width: int) -> tuple[int, int]:
    """Tokens per block and per chunk for sequences of ``size`` tokens."""
    chunk = min(size, 32 if width <= 64 else 64)
    groups = max(1, min(16, BLOCK_ELEMENTS // max(1, rows * chunk * width), -(-size // chunk)))
    return groups * chunk, chunk


def blocks(size: int, length: int, reverse: bool) -> Iterator[slice]:
    """Blocks of a sequence in the order of the scan."""
    for first in range(0, size, length):
        last = min(first + length, size)
        yield slice(size - last, size - first) if reverse else slice(first, last)


def take(x: Tensor, where: slice, length: int, reverse: bool, work: torch.dtype | None) -> Tensor:
    """Cut tokens out of (B, S, NH, ...), order them by the scan, pad with zeros: [B * NH, length, ...]."""
    part = x[:, where].transpose(1, 2)
    part = part.flip(2) if reverse else part
    part = part if work is None else part.to(work)
    missing = length - part.shape[2]
    if missing:
        part = torch.cat([part, part.new_zeros(*part.shape[:2], missing, *part.shape[3:])], 2)
    return part.flatten(0, 1)


def put(out: Tensor, where: slice, values: Tensor, reverse: bool) -> None:
    """Write [B * NH, length, ...] into (B, S, NH, ...): the inverse of `take`."""
    count = out[:, where].shape[1]
    values = values.view(out.shape[0], out.shape[2], *values.shape[1:])[:, :, :count]
    out[:, where] = (values.flip(2) if reverse else values).transpose(1, 2)


def work_dtype(q: Tensor) -> torch.dtype:
    """Arithmetic for tokens of this dtype."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


def mlstm_forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Cell over (B, S, NH, DH): h, and the signed normaliser (B, S, NH)."""
    batch, size, heads, width = q.shape
    work = work_dtype(q)
    h = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    normaliser = torch.empty(i.shape, dtype=work, device=q.device)
    state = initial_state(batch * heads, width, q.new_empty(0, dtype=work))
    length, chunk = block_plan(batch * heads, size, width)
    for where in blocks(size, length, reverse):
        tokens = -(-(where.stop - where.start) // chunk) * chunk
        parts = (take(x, where, tokens, reverse, work) for x in (q, k, v))
        gates = (take(x, where, tokens, reverse, None) for x in (i, f))
        c = prepare((*parts, *gates), state.m, chunk)
        part, signed, state = forward_block(c, state)
        put(h, where, part, reverse)
        put(normaliser, where, signed, reverse)
    return h, normaliser


def mlstm_backward(
    dh: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    h: Tensor,
    normaliser: Tensor,
    reverse: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradient of `mlstm_forward`: dq, dk, dv in the dtype of the tokens, di, df in that of the gates."""
    batch, size, heads, width = q.shape
    work = work_dtype(q)
    length, chunk = block_plan(batch * heads, size, width)
    order = list(blocks(size, length, reverse))

    def load(where: slice, m_in: Tensor) -> tuple[Chunks, int]:
        tokens = -(-(where.stop - where.start) // chunk) * chunk
        parts = (take(x, where, tokens, reverse, work) for x in (q, k, v))
        gates = (take(x, where, tokens, reverse, None) for x in (i, f))
        return prepare((*parts, *gates), m_in, chunk), tokens

    states = [initial_state(batch * heads, width, q.new_empty(0, dtype=work))]
    for where in order[:-1]:
        c, _ = load(where, states[-1].m)
        states.append(chunk_states(c, states[-1])[2])
    grads = tuple(torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v, i, f))
    grad = zero_gradient(states[-1])
    for where, state in zip(reversed(order), reversed(states), strict=True):
        c, tokens = load(where, state.m)
        d_out, out, signed = (take(x, where, tokens, reverse, work) for x in (dh, h, normaliser))
        gate = take(f, where, tokens, reverse, None)
        parts, grad = backward_block(c, state, d_out, out, signed, gate, grad)
        for whole, part in zip(grads, parts, strict=True):
            put(whole, where, part, reverse)
    return grads  # type: ignore[return-value]
