"""Residual convolution blocks of the U-Net, in 2D and 3D."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from xlstm_unet.nets.norm import InstanceNorm

NEGATIVE_SLOPE = 0.01
"""Slope of LeakyReLU below zero, and the slope that He initialisation assumes."""


def convolution(
    inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int] | None = None
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution with bias that pads by half its kernel; 2D or 3D by the length of ``kernel``."""
    layer = nn.Conv2d if len(kernel) == 2 else nn.Conv3d
    return layer(
        inputs,
        outputs,
        tuple(kernel),  # type: ignore[arg-type]
        tuple(stride or [1] * len(kernel)),  # type: ignore[arg-type]
        tuple(k // 2 for k in kernel),  # type: ignore[arg-type]
    )


class ResidualBlock(nn.Module):
    """Two normalised convolutions beside the input: ``act(norm(conv(act(norm(conv(x))))) + x)``.

    The released code has two of these: with a 1x1 convolution on the input (its ``BasicResBlock``, which
    changes width and resolution) and without (stride 1, equal widths).

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    kernel, stride
        One number an axis.
    projected
        Whether the input passes a strided 1x1 convolution before it is added.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: Sequence[int],
        stride: Sequence[int] | None = None,
        *,
        projected: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, kernel, stride)
        self.norm1 = InstanceNorm(outputs)
        self.conv2 = convolution(outputs, outputs, kernel)
        self.norm2 = InstanceNorm(outputs)
        self.conv3 = convolution(inputs, outputs, [1] * len(kernel), stride) if projected else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        y = leaky_relu(self.norm1(self.conv1(x)), NEGATIVE_SLOPE, inplace=True)
        y = self.norm2(self.conv2(y))
        y += x if self.conv3 is None else self.conv3(x)
        return leaky_relu(y, NEGATIVE_SLOPE, inplace=True)


def residual_blocks(
    inputs: int, outputs: int, count: int, kernel: Sequence[int], stride: Sequence[int] | None = None
) -> nn.Sequential:
    """Return ``count`` residual blocks: the first projected, from ``inputs`` and with ``stride``."""
    first = ResidualBlock(inputs, outputs, kernel, stride, projected=True)
    return nn.Sequential(first, *(ResidualBlock(outputs, outputs, kernel) for _ in range(count - 1)))
