"""How a sequence is cut into blocks and chunks, and how tokens get in and out of them."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BLOCK_ELEMENTS = {"cpu": 1 << 17}
"""Target size of one tensor of a block (N * T * D): on a CPU a block stays in a core's cache."""

LARGE_BLOCK = 1 << 24
"""The same on any other device, where many small operations cost more than memory."""

CHUNK, MOST_CHUNKS = 64, 32


def block_plan(rows: int, size: int, width: int, device: torch.device, times: int = 1) -> tuple[int, int]:
    """Tokens per block and per chunk for ``rows`` sequences of ``size`` tokens of ``width`` features.

    Blocks have ``times`` the usual size.
    """
    chunk = min(size, CHUNK)
    elements = times * BLOCK_ELEMENTS.get(device.type, LARGE_BLOCK)
    groups = max(1, min(MOST_CHUNKS, elements // (rows * chunk * width), -(-size // chunk)))
    return groups * chunk, chunk


def blocks(size: int, length: int, reverse: bool) -> Iterator[slice]:
    """Blocks of a sequence in the order of the scan."""
    for first in range(0, size, length):
        last = min(first + length, size)
        yield slice(size - last, size - first) if reverse else slice(first, last)


def padded(where: slice, chunk: int) -> int:
    """Tokens of a block with those that fill up its last chunk."""
    count: int = where.stop - where.start
    return -(-count // chunk) * chunk


def take(x: Tensor, where: slice, tokens: int, reverse: bool) -> Tensor:
    """Cut a block out of (B, S, ...), order it by the scan, pad with zeros: [B, T, ...]."""
    part = x[:, where]
    part = part.flip(1) if reverse else part
    missing = tokens - part.shape[1]
    if missing:
        part = torch.cat([part, part.new_zeros(part.shape[0], missing, *part.shape[2:])], 1)
    return part


def put(out: Tensor, where: slice, values: Tensor, reverse: bool) -> None:
    """Write a block [B, T, ...] into (B, S, ...): the inverse of `take`."""
    values = values[:, : where.stop - where.start]
    out[:, where] = values.flip(1) if reverse else values


def to_rows(x: Tensor, chunk: int) -> Tensor:
    """View tokens [B, T, NH, D] chunk by chunk: [G, B, NH, L, D]."""
    batch, tokens, heads, width = x.shape
    return x.view(batch, tokens // chunk, chunk, heads, width).permute(1, 0, 3, 2, 4)


def from_rows(x: Tensor, batch: int, heads: int) -> Tensor:
    """Bring rows [G * B * NH, L, D] back to tokens [B, T, NH, D] (a copy where it has to be)."""
    _, chunk, width = x.shape
    return x.view(-1, batch, heads, chunk, width).permute(1, 0, 3, 2, 4).reshape(batch, -1, heads, width)


def gates_to_rows(x: Tensor, work: torch.dtype) -> Tensor:
    """Bring gates [N, G, L] to rows [G * N, L, 1] of dtype ``work``."""
    return x.transpose(0, 1).to(work).reshape(-1, x.shape[-1], 1)


def rows_to_gates(x: Tensor, rows: int) -> Tensor:
    """Bring rows [G * N, L] to gates [N, G, L], float64."""
    return x.view(-1, rows, x.shape[-1]).transpose(0, 1).double()


def sequences(x: Tensor) -> Tensor:
    """Bring gates [B, T, NH] to one row a sequence: [N, T]."""
    return x.transpose(1, 2).flatten(0, 1)


def work_dtype(x: Tensor) -> torch.dtype:
    """Arithmetic for tokens of this dtype."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
