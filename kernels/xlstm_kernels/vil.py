"""The front of the Vision-LSTM layer: checks and choice of form."""

from __future__ import annotations

import torch
from torch import Tensor

from xlstm_kernels.backend import select
from xlstm_kernels.blocks import work_dtype
from xlstm_kernels.folding import fold
from xlstm_kernels.layer import vil_layer_plain
from xlstm_kernels.layer_ops import vil_layer_op, vil_layer_triton_op
from xlstm_kernels.register import tracing
from xlstm_kernels.weights import ViLWeights


def vil_layer(
    x: Tensor, w: ViLWeights, *, reverse: bool = False, backend: str = "auto", precision: str = "ieee"
) -> Tensor:
    """Vision-LSTM layer with its residual, ``x + layer(norm(x))``.

    Parameters
    ----------
    x
        Tokens (B, S, C) in any strides. Products with the large weights are computed in its dtype, gates,
        states and norms in float32 at least.
    w
        Weights, as in the released network (see `ViLWeights`).
    reverse
        Scan from the last token to the first; the convolution looks the same way.
    backend
        One of `xlstm_kernels.backend.BACKENDS`.
    precision
        How Triton multiplies float32 in the cell: "ieee", "tf32x3" or "tf32".

    Returns
    -------
    Tensor
        (B, S, C), the dtype of x.

    Raises
    ------
    ValueError
        If the width of x is not that of the weights.
    """
    if x.ndim != 3 or x.shape[-1] != w.norm.shape[0]:
        raise ValueError(f"x has shape {tuple(x.shape)}, expected (B, S, C) with C = {w.norm.shape[0]}")
    name = select(backend, x, 2 * x.shape[-1] // w.heads).name
    y: Tensor
    if name != "dense" and not tracing():
        folded = list(fold(w, work_dtype(x), x.dtype))
        if name == "triton":
            y = vil_layer_triton_op(x.contiguous(), folded, reverse, precision)[0]
        else:
            keep = torch.is_grad_enabled() and any(part.requires_grad for part in (x, *w))
            y = vil_layer_op(x, folded, reverse, keep)[0]
        return y
    return vil_layer_plain(x, w, reverse, backend=backend)
