"""The ViL layer: an mLSTM layer that reads a feature map as a sequence of tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from xlstm_kernels import ViLWeights, vil_layer
from xlstm_kernels.weights import CONV_KERNEL


def block_size(width: int) -> int:
    """Return the size of the diagonal blocks of q, k and v, which is also the number of heads."""
    return 4 if width % 4 == 0 else 2


class ViLLayer(nn.Module):
    """``x + layer(norm(x))`` over the positions of a feature map, in row-major order.

    Holds the weights; `xlstm_kernels.vil_layer` computes. As in the release it runs in float32 whatever the
    rest of the network uses. Source: Vision-LSTM (arXiv 2406.04303) and xLSTM (arXiv 2405.04517, eq. 19-27).

    Parameters
    ----------
    width
        Features of a token: channels of the map, or its number of positions with ``channel_tokens``.
    reverse
        Scan from the last token to the first.
    channel_tokens
        Swap the roles: tokens are the channels, features the flattened positions. Fits one map size only.
    """

    def __init__(self, width: int, *, reverse: bool = False, channel_tokens: bool = False) -> None:
        super().__init__()
        inner, block = 2 * width, block_size(width)
        self.width = width
        self.reverse = reverse
        self.channel_tokens = channel_tokens
        shapes: dict[str, tuple[int, ...]] = {
            "norm": (width,),
            "proj_up": (2 * inner, width),
            "conv_weight": (inner, 1, CONV_KERNEL),
            "conv_bias": (inner,),
            "q": (inner // block, block, block),
            "k": (inner // block, block, block),
            "v": (inner // block, block, block),
            "igate_weight": (block, 3 * inner),
            "igate_bias": (block,),
            "fgate_weight": (block, 3 * inner),
            "fgate_bias": (block,),
            "outnorm": (inner,),
            "skip": (inner,),
            "proj_down": (width, inner),
        }
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape)))

    @property
    def weights(self) -> ViLWeights:
        """The parameters, as the kernels take them."""
        return ViLWeights(**{name: self.get_parameter(name) for name in ViLWeights._fields})

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, *spatial) to the same shape and dtype."""
        tokens = x.flatten(2)
        if not self.channel_tokens:
            tokens = tokens.transpose(1, 2)
        with torch.autocast(x.device.type, enabled=False):
            tokens = tokens.to(torch.promote_types(x.dtype, torch.float32))
            tokens = vil_layer(tokens, self.weights, reverse=self.reverse)
        if not self.channel_tokens:
            tokens = tokens.transpose(1, 2)
        return tokens.reshape(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        """Return what `repr` shows in the brackets."""
        return f"{self.width}, reverse={self.reverse}, channel_tokens={self.channel_tokens}"
