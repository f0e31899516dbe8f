"""Registering an operation with torch: opaque to autograd and to the compiler, both told what they need.

What ``torch.library.custom_op`` does, without the wrapper that imports the compiler at the first call, which
costs every process a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_LIBRARY = torch.library.Library("xlstm_kernels", "DEF")  # type: ignore[no-untyped-call]


def tracing() -> bool:
    """Whether torch.jit records what runs, for a program that will not know our operations."""
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined,no-untyped-call]


def operation(
    name: str,
    schema: str,
    run: Callable[..., Any],
    fake: Callable[..., Any],
    *,
    save: Callable[..., None] | None = None,
    backward: Callable[..., Any] | None = None,
) -> Any:
    """Register an operation and return it.

    Parameters
    ----------
    name, schema
        Its name in the namespace ``xlstm_kernels``, and its arguments and results as torch writes them.
    run
        What computes it, on any device; its results must not share memory with its arguments.
    fake
        The same arguments to results of the right shapes, strides and dtypes, without computing.
    save, backward
        ``setup_context`` and backward of the gradient, where it has one.
    """
    qualified = f"xlstm_kernels::{name}"
    torch.library.define(qualified, schema, lib=_LIBRARY)
    torch.library.impl(qualified, "default", run, lib=_LIBRARY)
    torch.library.register_fake(qualified, fake, lib=_LIBRARY)
    if backward is not None:
        torch.library.register_autograd(qualified, backward, setup_context=save, lib=_LIBRARY)
    return getattr(torch.ops.xlstm_kernels, name).default
