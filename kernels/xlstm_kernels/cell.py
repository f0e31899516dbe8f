"""The front of the mLSTM cell: checks, dtypes, choice of backend."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_kernels.backend import select
from xlstm_kernels.chunkwise import mlstm_forward
from xlstm_kernels.dense import mlstm_dense
from xlstm_kernels.ops import mlstm_torch, mlstm_triton
from xlstm_kernels.register import tracing


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reverse: bool = False,
    *,
    backend: str = "auto",
    precision: str = "ieee",
) -> Tensor:
    """Run the mLSTM cell of xLSTM over whole sequences, with cost linear in their length.

    Parameters
    ----------
    q, k, v
        (B, S, NH, DH) in any strides, one floating dtype. q is scaled by ``DH ** -0.5`` inside.
    i, f
        Pre-activations of the input and forget gates (B, S, NH). They are never rounded below float32.
        ``f`` may be minus infinity: nothing passes that token.
    reverse
        Scan from the last token to the first.
    backend
        One of `xlstm_kernels.backend.BACKENDS`.
    precision
        How Triton multiplies float32: "ieee", "tf32x3" or "tf32".

    Returns
    -------
    Tensor
        h (B, S, NH, DH), the dtype of q. Differentiable once with respect to all five tensors.

    Raises
    ------
    ValueError
        If shapes, dtypes or the backend do not fit.

    Notes
    -----
    The mathematics is that of `xlstm_kernels.dense.mlstm_dense` (xLSTM, arXiv 2405.04517).

    Examples
    --------
    >>> q, k, v = torch.randn(3, 1, 100, 4, 16)
    >>> i, f = torch.randn(2, 1, 100, 4)
    >>> mlstm(q, k, v, i, f).shape
    torch.Size([1, 100, 4, 16])
    """
    _check(q, k, v, i, f)
    gate_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    i, f = i.to(gate_dtype), f.to(gate_dtype)
    name = select(backend, q, q.shape[-1]).name
    if name == "dense":
        return mlstm_dense(q, k, v, i, f, reverse)
    h: Tensor
    if tracing():
        h = mlstm_forward(q, k, v, i, f, reverse)[0]  # a trace runs where our operations are not known
    elif name == "triton":
        h = mlstm_triton(q, k, v, i, f, reverse, precision)[0]
    else:
        h = mlstm_torch(q, k, v, i, f, reverse)[0]
    return h


def _check(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> None:
    if q.ndim != 4 or 0 in q.shape:
        raise ValueError(f"q has shape {tuple(q.shape)}, expected (B, S, NH, DH) without empty axes")
    for name, x in (("k", k), ("v", v)):
        if x.shape != q.shape or x.dtype != q.dtype:
            raise ValueError(
                f"{name} is {tuple(x.shape)} {x.dtype}, expected {tuple(q.shape)} {q.dtype} like q"
            )
    for name, x in (("i", i), ("f", f)):
        if x.shape != q.shape[:3]:
            raise ValueError(f"{name} has shape {tuple(x.shape)}, expected (B, S, NH) = {tuple(q.shape[:3])}")
    if not q.is_floating_point():
        raise ValueError(f"q is {q.dtype}, expected a floating dtype")
