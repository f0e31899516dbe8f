"""Which implementation of the mLSTM cell runs, and why: the one place where that is decided."""

from __future__ import annotations

from typing import Literal, NamedTuple, cast, get_args

from torch import Tensor

Backend = Literal["auto", "torch", "dense"]
BACKENDS: tuple[str, ...] = get_args(Backend)


class Choice(NamedTuple):
    """A backend and the reason for it."""

    name: Backend
    reason: str


def select(requested: str, q: Tensor) -> Choice:
    """Choose the backend for tokens like ``q``.

    Raises
    ------
    ValueError
        If ``requested`` is no backend.
    """
    if requested not in BACKENDS:
        raise ValueError(f"backend {requested!r} is not one of {', '.join(BACKENDS)}")
    if requested != "auto":
        return Choice(cast("Backend", requested), "asked for")
    return Choice("torch", "the chunkwise form runs on every device")
