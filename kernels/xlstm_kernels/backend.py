"""Which implementation of the mLSTM cell runs, and why: the one place where that is decided."""

from __future__ import annotations

import functools
import os
import sys
from typing import Literal, NamedTuple, cast, get_args

import torch
from torch import Tensor

Backend = Literal["auto", "triton", "torch", "dense"]
BACKENDS: tuple[str, ...] = get_args(Backend)

ENVIRONMENT = "XLSTM_KERNELS_BACKEND"
"""Environment variable that takes the place of ``auto``."""

NOT_AUTOMATIC = f"the Triton kernels have not been run on a GPU yet; {ENVIRONMENT}=triton takes them"
"""Why ``auto`` takes the torch form on a GPU too."""

WIDEST = 256
"""Head width up to which the Triton kernels hold a state."""


class Choice(NamedTuple):
    """A backend and the reason for it."""

    name: Backend
    reason: str


def select(requested: str, x: Tensor, width: int | None = None) -> Choice:
    """Choose the backend for tokens like ``x``, in heads of ``width`` (its last axis by default).

    Raises
    ------
    ValueError
        If ``requested`` is no backend.
    RuntimeError
        If Triton is asked for and cannot run.
    """
    asked = os.environ.get(ENVIRONMENT, "auto") if requested == "auto" else requested
    if asked not in BACKENDS:
        raise ValueError(f"backend {asked!r} is not one of {', '.join(BACKENDS)}")
    if asked == "auto":
        return Choice("torch", _why_torch(x.device.type))
    if asked == "triton" and (obstacle := _obstacle(x.device.type, x.dtype, width or x.shape[-1])):
        raise RuntimeError(f"backend 'triton' cannot run: {obstacle}")
    return Choice(cast("Backend", asked), "asked for")


def _why_torch(device: str) -> str:
    return NOT_AUTOMATIC if device == "cuda" else f"the tokens are on {device}, Triton needs a GPU"


def _obstacle(device: str, dtype: torch.dtype, width: int) -> str:
    """Why Triton cannot run, in a few words; empty where it can."""
    if dtype == torch.float64:
        return "float64 is computed by the torch form"
    if width > WIDEST:
        return f"head width {width} is above {WIDEST}"
    if interpreted():
        return triton_problem()
    if device != "cuda":
        return f"the tokens are on {device}, Triton needs a GPU"
    return triton_problem()


def interpreted() -> bool:
    """Whether Triton's interpreter is switched on, which runs the kernels on a CPU, slowly, for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def triton_problem() -> str:
    """Import Triton, once and safely; what is wrong with it, or an empty text.

    Triton carries its own LLVM. Where a GL driver has loaded another one (a napari viewer on Mesa), symbols
    of the two mix and the process dies, so the library is loaded with its own symbols first.
    """
    if "triton" in sys.modules:
        return ""
    flags = sys.getdlopenflags() if hasattr(sys, "getdlopenflags") else None
    try:
        if flags is not None:
            sys.setdlopenflags(os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0))
        import triton  # noqa: F401
    except Exception as error:
        return f"Triton cannot be imported ({type(error).__name__}: {error})"
    finally:
        if flags is not None:
            sys.setdlopenflags(flags)
    return ""


def describe(device: str = "auto") -> str:
    """One sentence: which backend runs on a device ("cpu", "cuda", "auto" for the best), and why."""
    kind = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else torch.device(device).type
    asked = os.environ.get(ENVIRONMENT, "auto")
    if asked == "auto":
        return f"torch on {kind}: {_why_torch(kind)}"
    obstacle = _obstacle(kind, torch.float32, 1) if asked == "triton" else ""
    return f"{asked} on {kind}: {f'cannot run, {obstacle}' if obstacle else f'asked for by {ENVIRONMENT}'}"
