"""The chunkwise form of the mLSTM cell in plain torch: cost linear in the length, exact gradient, any shape.

A sequence is cut into blocks, a block into G chunks of L tokens. Inside a chunk the cell is a small masked
product; chunks exchange states (DH x DH and a normaliser DH), a block's at once; blocks pass on the last.

Shapes: N = batch * heads sequences, R = G * N rows (chunk by chunk), T = G * L tokens, D = head width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_kernels.blocks import (
    block_plan,
    blocks,
    from_rows,
    gates_to_rows,
    padded,
    put,
    rows_to_gates,
    sequences,
    take,
    to_rows,
    work_dtype,
)
from xlstm_kernels.dense import EPS
from xlstm_kernels.gates import (
    Gates,
    full_decay,
    scan_gates,
    split_decay,
    stabiliser_gradient,
    suffix_sum,
)
from xlstm_kernels.register import tracing


class State(NamedTuple):
    """What a block hands to the next, or its gradient."""

    matrix: Tensor
    """Matrix state [N, D * D]."""
    vector: Tensor
    """Normaliser state [N, D]."""
    m: Tensor
    """Stabiliser [N], float64; of its gradient two forms [2, N], see `backward_block`."""


def initial_state(rows: int, width: int, like: Tensor) -> State:
    """State before the first token of ``rows`` sequences."""
    m = torch.full((rows,), -torch.inf, dtype=torch.float64, device=like.device)
    return State(like.new_zeros(rows, width * width), like.new_zeros(rows, width), m)


class Chunks(NamedTuple):
    """A block made ready for products: decays folded into q and k.

    Where the decays inside chunks are split into factors, the q and k that see each other are also those that
    read and write the state. Where they are not, ``decay`` holds them.
    """

    gates: Gates
    q: Tensor  # [R, L, D]
    k: Tensor  # [R, L, D]
    v: Tensor  # [R, L, D]
    decay: Tensor | None  # [R, L, L]
    q_state: Tensor  # [R, L, D] what reads the state before the chunk
    k_state: Tensor  # [R, L, D] what writes the state after the chunk
    read: Tensor  # [N, G, 1] scale of the state before a chunk, as q_state reads it, float64
    write: Tensor  # [N, G, 1] scale of what k_state writes, in the state after the chunk, float64
    across: (
        Tensor  # [N, G, 1] decay of the state before a chunk, as q_state reads it, to that after it, float64
    )
    q_factor: Tensor  # [R, L, 1] from the caller's q to q
    k_factor: Tensor  # [R, L, 1]
    q_state_factor: Tensor  # [R, L, 1]
    k_state_factor: Tensor  # [R, L, 1]

    def transfer(self) -> Tensor:
        """How what the chunks write becomes what the chunks read, [N, G + 1, G + 1].

        Columns are the state before the block, then what each chunk writes; rows the state before each chunk
        as it is read, then the state after the block.
        """
        one = torch.ones_like(self.read[:, :1])
        decays = self.gates.decays() * torch.cat([self.read, one], 1)
        return (decays * torch.cat([one, self.write], 1).mT).to(self.q_factor.dtype)


def prepare(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, m_in: Tensor, product: torch.dtype | None = None
) -> Chunks:
    """Scan the gates of a block and fold them into q and k.

    Parameters
    ----------
    q, k, v
        Tokens as rows [G, B, NH, L, ...] in any strides; what follows L is the head width.
    i, f
        Gate pre-activations [N, T].
    m_in
        Stabiliser before the block [N].
    product
        Dtype of the products; that of the tokens by default.
    """
    chunk, width = q.shape[3], q.shape[4:].numel()
    gates = scan_gates(i, f, m_in, chunk)
    work, scale, product = q.dtype, width**-0.5, product or q.dtype
    # Whether decays can be split depends on values: a trace must not look, a GPU would have to wait.
    fixed = i.device.type != "cpu" or tracing()
    factors = None if fixed else split_decay(gates)
    values = _rows(v, None, product)
    if factors is not None:
        target, source, reference = factors
        q_factor, k_factor = gates_to_rows(target * scale, work), gates_to_rows(source, work)
        write = torch.exp(gates.local[..., -1:] + reference - gates.end)
        read = torch.exp(gates.start - reference)
        inner_q, inner_k = _rows(q, q_factor, product), _rows(k, k_factor, product)
        return Chunks(
            gates, inner_q, inner_k, values, None, inner_q, inner_k,
            read, write, write, q_factor, k_factor, q_factor, k_factor,
        )  # fmt: skip
    reads = gates_to_rows(torch.exp(gates.local + gates.start - gates.m) * scale, work)
    writes = gates_to_rows(torch.exp(gates.local[..., -1:] - gates.local + gates.i - gates.end), work)
    across = torch.exp(gates.local[..., -1:] + gates.start - gates.end)
    one, ones = torch.ones_like(across), torch.ones_like(writes)
    return Chunks(
        gates, _rows(q, ones * scale, product), _rows(k, ones, product), values,
        full_decay(gates).transpose(0, 1).to(product).reshape(-1, chunk, chunk),
        _rows(q, reads, product), _rows(k, writes, product),
        one, one, across, ones * scale, ones, reads, writes,
    )  # fmt: skip


def _rows(x: Tensor, factor: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Bring tokens [G, B, NH, L, ...] to rows [R, L, D] of ``dtype``, times the factor [R, L, 1]."""
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if factor is None:
        out.copy_(x)
    else:
        torch.mul(x, factor.view(*x.shape[:4], *[1] * (x.ndim - 4)), out=out)
    return out.view(-1, x.shape[3], x.shape[4:].numel())


def chunk_states(c: Chunks, state: State) -> tuple[Tensor, Tensor, State]:
    """States before every chunk, as read, [G, N, D * D] and [G, N, D]; state after the block."""
    transfer = c.transfer()
    written, inside = _with_end(transfer, state.matrix, first=True)
    _product(c.k_state.mT, c.v, inside)
    matrix = _passed(transfer, written)
    written, inside = _with_end(transfer, state.vector, first=True)
    torch.sum(c.k_state, 1, dtype=inside.dtype, out=inside.view(-1, inside.shape[-1]))
    vector = _passed(transfer, written)
    return matrix[:-1], vector[:-1], State(matrix[-1], vector[-1], c.gates.bounds[:, -1])


def _with_end(transfer: Tensor, end: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
    """Make room for what the G chunks of a block write beside what comes in at one ``end`` of it [N, X].

    Returns all [G + 1, N, X], the end in it, first or last, and the chunks' part [G, N, X] to be filled.
    """
    written = torch.empty(transfer.shape[1], *end.shape, dtype=end.dtype, device=end.device)
    inside, outside = (written[1:], written[0]) if first else (written[:-1], written[-1])
    outside.copy_(end)
    return written, inside


def _product(one: Tensor, other: Tensor, out: Tensor) -> None:
    """Multiply row by row [R, D, L] and [R, L, D] into [G, N, D * D], which may be of a wider dtype."""
    out = out.view(-1, one.shape[1], other.shape[2])
    if out.dtype == one.dtype:
        torch.bmm(one, other, out=out)
    else:
        out.copy_(torch.bmm(one, other))


def _passed(transfer: Tensor, written: Tensor) -> Tensor:
    """Pass along a block what is written [G + 1, N, X]: what is read, of the same shape."""
    states = torch.empty_like(written)
    torch.bmm(transfer, written.transpose(0, 1), out=states.transpose(0, 1))
    return states


def intra_weights(c: Chunks) -> Tensor:
    """Weights of the tokens of a chunk for one another, P [R, L (t), L (s)]."""
    weights = torch.bmm(c.q, c.k.mT)
    return weights.tril_() if c.decay is None else weights.mul_(c.decay)


def forward_block(c: Chunks, state: State) -> tuple[Tensor, Tensor, State]:
    """Cell over one block, before the division: numerator [R, L, D], signed normaliser [R, L], next state."""
    weights = intra_weights(c)
    matrix, vector, last = chunk_states(c, state)
    matrix, vector = matrix.view(-1, *[c.q.shape[-1]] * 2).to(c.q.dtype), vector.view(-1, c.q.shape[-1], 1)
    numerator = torch.bmm(weights, c.v).baddbmm_(c.q_state, matrix)
    normaliser = torch.bmm(c.q_state, vector.to(c.q.dtype)).squeeze(-1) + weights.sum(-1, dtype=vector.dtype)
    return numerator, normaliser, last


def floor_of(c: Chunks) -> Tensor:
    """Least value of the normaliser, ``exp(-m)`` [R, L]; infinite, so that h is 0, where it overflows."""
    return gates_to_rows(torch.exp(-c.gates.m), c.q_factor.dtype).squeeze(-1)


def backward_block(
    c: Chunks, state: State, dh: Tensor, h: Tensor, normaliser: Tensor, f: Tensor, grad: State
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], State]:
    """Gradient of one block.

    Parameters
    ----------
    c, state
        The block as prepared, and the state before it.
    dh, h
        Output gradient and output [R, L, D].
    normaliser
        Signed normaliser [R, L].
    f
        Forget gate pre-activations [N, T].
    grad
        Gradient of the state after the block.

    Returns
    -------
    tuple
        (dq, dk, dv [R, L, D], di, df [N, T] float64) and the gradient of the state before the block.

    Notes
    -----
    The stabiliser drops out of h but for eps, so its gradient is ``eps * d_den``: that is what ``df`` uses.
    It is also minus the sum of a whole row of ``P * dP``, which carries the very rounding errors that the
    dominating source of the row collects: led back to that source's input gate it cancels them, so ``di``
    uses this.
    """
    rows, width = grad.vector.shape
    floor = floor_of(c)
    den = torch.maximum(normaliser.abs(), floor).add_(EPS)
    output = (dh * h).sum(-1)
    d_den = -output / den
    d_num = dh / den.unsqueeze(-1)
    above = normaliser.abs() > floor
    d_norm = (d_den * normaliser.sign() * above).unsqueeze(-1)

    states, vectors, _ = chunk_states(c, state)
    d_states, d_vectors, d_in = _state_gradients(c, d_num, d_norm, grad)
    through = (states * d_states).sum(-1, dtype=torch.float64) + (vectors * d_vectors).sum(
        -1, dtype=torch.float64
    )
    through = through.mT.unsqueeze(-1) * (c.across / c.write)
    matrix, d_matrix = (x.view(-1, width, width) for x in (states, d_states))
    vector, d_vector = (x.view(-1, width) for x in (vectors, d_vectors))
    dq_state = torch.bmm(d_num, matrix.mT).addcmul_(d_norm, vector.unsqueeze(1))
    dk_state = torch.bmm(c.v, d_matrix.mT).add_(d_vector.unsqueeze(1))

    weights = intra_weights(c)
    dv = torch.bmm(weights.mT, d_num).baddbmm_(c.k_state, d_matrix)
    d_weights = torch.bmm(d_num, c.v.mT).add_(d_norm)
    pairs = weights.mul_(d_weights)
    d_scores = d_weights.tril_() if c.decay is None else d_weights.mul_(c.decay)
    dq, dk = torch.bmm(d_scores, c.k), torch.bmm(d_scores.mT, c.q)
    from_state = rows_to_gates((dq_state * c.q_state).sum(-1), rows)
    to_state = rows_to_gates((dk_state * c.k_state).sum(-1), rows)
    if c.decay is None:
        dq, dk = dq.add_(dq_state).mul_(c.q_factor), dk.add_(dk_state).mul_(c.k_factor)
    else:
        dq = dq.mul_(c.q_factor).addcmul_(dq_state, c.q_state_factor)
        dk = dk.addcmul_(dk_state, c.k_state_factor)

    row = rows_to_gates(pairs.sum(-1), rows) + from_state
    below = rows_to_gates(torch.where(above, 0.0, output * (1.0 - EPS / den)), rows)
    dm = torch.stack([EPS * rows_to_gates(d_den, rows), below - row]).flatten(2)
    passing, landed, d_m = stabiliser_gradient(c.gates, dm, grad.m)
    di = (rows_to_gates(pairs.sum(-2), rows) + to_state).flatten(1) + landed
    steps = (_decay_gradient(pairs, from_state, to_state) + through).flatten(1) + passing
    return (dq, dk, dv, di, steps * torch.sigmoid(-f.double())), d_in._replace(m=d_m)


def _decay_gradient(pairs: Tensor, from_state: Tensor, to_state: Tensor) -> Tensor:
    """Gradient of each log forget gate [N, G, L], but for what passes the whole chunk.

    A gate r decays every pair (t, s) with ``s < r <= t``. Those pairs alone are added up: the difference
    of the sums over all targets and over all sources would lose everything where gates are strong.

    Parameters
    ----------
    pairs
        ``P * dP`` inside the chunk [R, L (t), L (s)].
    from_state, to_state
        The same for pairs of a target with the state before the chunk, and of a source with the state after
        it [N, G, L].
    """
    size = pairs.shape[-1]
    earlier = torch.ones(size, size, dtype=pairs.dtype, device=pairs.device).triu_(1)
    inside = rows_to_gates((pairs @ earlier).tril_().sum(-2), from_state.shape[0])
    inside = inside + suffix_sum(from_state)
    inside[..., 1:] += to_state[..., :-1].cumsum(-1)
    return inside


def _state_gradients(c: Chunks, d_num: Tensor, d_norm: Tensor, grad: State) -> tuple[Tensor, Tensor, State]:
    """Gradient of what every chunk writes, matrix and vector; of the state before the block, but for m."""
    transfer = c.transfer().mT
    written, inside = _with_end(transfer, grad.matrix, first=False)
    _product(c.q_state.mT, d_num, inside)
    matrix = _passed(transfer, written)
    written, inside = _with_end(transfer, grad.vector, first=False)
    torch.sum(c.q_state * d_norm, 1, out=inside.view(-1, inside.shape[-1]))
    vector = _passed(transfer, written)
    return matrix[1:], vector[1:], State(matrix[0], vector[0], grad.m)


def mlstm_forward(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reverse: bool
) -> tuple[Tensor, Tensor]:
    """Cell over (B, S, NH, DH): h, and the signed normaliser (B, S, NH)."""
    batch, size, heads, width = q.shape
    work = work_dtype(q)
    h = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    normaliser = torch.empty(i.shape, dtype=work, device=q.device)
    state = initial_state(batch * heads, width, q.new_empty(0, dtype=work))
    length, chunk = block_plan(batch * heads, size, width, q.device)
    for where in blocks(size, length, reverse):
        c = _load(q, k, v, i, f, where, reverse, state.m, chunk)
        part, signed, state = forward_block(c, state)
        part /= torch.maximum(signed.abs(), floor_of(c)).add_(EPS).unsqueeze(-1)
        put(h, where, from_rows(part, batch, heads), reverse)
        put(normaliser, where, from_rows(signed.unsqueeze(-1), batch, heads).squeeze(-1), reverse)
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
    length, chunk = block_plan(batch * heads, size, width, q.device)
    order = list(blocks(size, length, reverse))
    states = [initial_state(batch * heads, width, q.new_empty(0, dtype=work))]
    for where in order[:-1]:
        c = _load(q, k, v, i, f, where, reverse, states[-1].m, chunk)
        states.append(chunk_states(c, states[-1])[-1])
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    di, df = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (i, f))
    first = states[0]
    grad = State(
        torch.zeros_like(first.matrix), torch.zeros_like(first.vector), first.m.new_zeros(2, batch * heads)
    )
    for where, state in zip(reversed(order), reversed(states), strict=True):
        c = _load(q, k, v, i, f, where, reverse, state.m, chunk)
        tokens = padded(where, chunk)
        upstream = (dh, h, normaliser.unsqueeze(-1))
        d_out, out, signed = (
            _rows(to_rows(take(x, where, tokens, reverse), chunk), None, work) for x in upstream
        )
        gate = sequences(take(f, where, tokens, reverse))
        parts, grad = backward_block(c, state, d_out, out, signed.squeeze(-1), gate, grad)
        for whole, part in zip((dq, dk, dv), parts[:3], strict=True):
            put(whole, where, from_rows(part, batch, heads), reverse)
        for whole, part in zip((di, df), parts[3:], strict=True):
            put(whole, where, part.view(batch, heads, tokens).transpose(1, 2), reverse)
    return dq, dk, dv, di, df


def _load(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    where: slice,
    reverse: bool,
    m_in: Tensor,
    chunk: int,
) -> Chunks:
    tokens, work = padded(where, chunk), work_dtype(q)
    q, k, v = (to_rows(take(x, where, tokens, reverse).to(work), chunk) for x in (q, k, v))
    i, f = (sequences(take(x, where, tokens, reverse)) for x in (i, f))
    return prepare(q, k, v, i, f, m_in)
