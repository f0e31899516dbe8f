"""Initial weights, as the released training sets them."""

from __future__ import annotations

import math

import torch
from torch import nn

from xlstm_unet.nets.blocks import NEGATIVE_SLOPE
from xlstm_unet.nets.norm import InstanceNorm
from xlstm_unet.nets.vil import ViLLayer


@torch.no_grad()
def initialise(network: nn.Module, generator: torch.Generator | None = None) -> None:
    """Fill every weight of a network.

    Convolutions: He with the slope of LeakyReLU, bias 0; norms: identity; ViL layers: as in Vision-LSTM.

    Parameters
    ----------
    network
        Changed in place.
    generator
        Source of the random numbers; torch's global one without it.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=NEGATIVE_SLOPE, generator=generator)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, InstanceNorm):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, ViLLayer):
            _initialise_vil(module, generator)


def _initialise_vil(layer: ViLLayer, generator: torch.Generator | None) -> None:
    w, width = layer.weights, layer.width
    for offset_or_gate in (w.norm, w.outnorm, w.igate_weight, w.fgate_weight):
        nn.init.zeros_(offset_or_gate)
    nn.init.ones_(w.skip)
    for small in (w.proj_up, w.q, w.k, w.v):
        nn.init.normal_(small, std=math.sqrt(2 / (5 * width)), generator=generator)
    nn.init.normal_(w.proj_down, std=2 / math.sqrt(width), generator=generator)
    bound = 1 / math.sqrt(w.conv_weight.shape[-1])
    nn.init.uniform_(w.conv_weight, -bound, bound, generator=generator)
    nn.init.uniform_(w.conv_bias, -bound, bound, generator=generator)
    nn.init.normal_(w.igate_bias, std=0.1, generator=generator)
    w.fgate_bias.copy_(torch.linspace(3.0, 6.0, len(w.fgate_bias)))
