"""The Vision-LSTM layer, step by step in plain torch: the readable truth that the fused forms are held to."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_kernels.cell import mlstm
from xlstm_kernels.weights import CONV_KERNEL, NORM_EPS, ViLWeights


def vil_layer_plain(x: Tensor, w: ViLWeights, reverse: bool = False, *, backend: str = "auto") -> Tensor:
    """``x + layer(norm(x))``, every step a torch operation. Parameters as in `vil_layer`."""
    heads = w.heads
    w = ViLWeights(*(part.to(x.dtype) for part in w))
    tokens = F.layer_norm(x, x.shape[-1:], 1.0 + w.norm, None, NORM_EPS)
    m, z = F.linear(tokens, w.proj_up).chunk(2, -1)
    a = F.silu(directed_conv(m, w.conv_weight, w.conv_bias, reverse))
    q, k, v = blockwise(a, w.q), blockwise(a, w.k), blockwise(m, w.v)
    qkv = torch.cat([q, k, v], -1)
    i = F.linear(qkv, w.igate_weight, w.igate_bias)
    f = F.linear(qkv, w.fgate_weight, w.fgate_bias)
    q, k, v = (part.view(*part.shape[:2], heads, -1) for part in (q, k, v))
    h = mlstm(q, k, v, i, f, reverse, backend=backend)
    h = F.layer_norm(h, h.shape[-1:], None, None, NORM_EPS).flatten(-2) * (1.0 + w.outnorm)
    return x + F.linear((h + w.skip * a) * F.silu(z), w.proj_down)


def directed_conv(x: Tensor, weight: Tensor, bias: Tensor, reverse: bool) -> Tensor:
    """Depthwise convolution over tokens (B, S, E) that sees a token and the three the scan met before it."""
    padding = (0, CONV_KERNEL - 1) if reverse else (CONV_KERNEL - 1, 0)
    kernel = weight.flip(-1) if reverse else weight
    return F.conv1d(F.pad(x.mT, padding), kernel, bias, groups=x.shape[-1]).mT


def blockwise(x: Tensor, weight: Tensor) -> Tensor:
    """Block-diagonal projection of (..., E) with weight (E / b, b, b): ``out_i = sum_j W[h, i, j] x_j``."""
    return torch.einsum("...hj,hij->...hi", x.reshape(*x.shape[:-1], *weight.shape[:2]), weight).flatten(-2)
