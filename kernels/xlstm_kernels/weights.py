"""The weights of a Vision-LSTM layer."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

CONV_KERNEL = 4
"""Tokens that the causal convolution of the layer sees."""

NORM_EPS = 1e-5
"""Added to variances in both norms of the layer."""


class ViLWeights(NamedTuple):
    """Weights of one layer of width C: inner width E = 2 C, NH heads, diagonal blocks of NH x NH.

    Weights of the two norms are kept as offsets from 1, as in the released network.
    """

    norm: Tensor  # (C,)
    proj_up: Tensor  # (2 E, C)
    conv_weight: Tensor  # (E, 1, 4)
    conv_bias: Tensor  # (E,)
    q: Tensor  # (E / NH, NH, NH)
    k: Tensor  # (E / NH, NH, NH)
    v: Tensor  # (E / NH, NH, NH)
    igate_weight: Tensor  # (NH, 3 E)
    igate_bias: Tensor  # (NH,)
    fgate_weight: Tensor  # (NH, 3 E)
    fgate_bias: Tensor  # (NH,)
    outnorm: Tensor  # (E,)
    skip: Tensor  # (E,)
    proj_down: Tensor  # (C, E)

    @property
    def heads(self) -> int:
        """Number of heads, which is also the size of the diagonal blocks."""
        return self.igate_weight.shape[0]
