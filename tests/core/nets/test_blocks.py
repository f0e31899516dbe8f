from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlstm_unet.nets.blocks import ResidualBlock, convolution, residual_blocks

CONV = {2: F.conv2d, 3: F.conv3d}


def by_hand(block: ResidualBlock, x: torch.Tensor, stride: tuple[int, ...]) -> torch.Tensor:
    """What the published block computes, step by step."""
    conv = CONV[len(stride)]
    pads = [k // 2 for k in block.conv1.kernel_size]
    y = conv(x, block.conv1.weight, block.conv1.bias, stride, pads)
    y = F.leaky_relu(F.instance_norm(y, None, None, block.norm1.weight, block.norm1.bias), 0.01)
    y = conv(y, block.conv2.weight, block.conv2.bias, 1, pads)
    y = F.instance_norm(y, None, None, block.norm2.weight, block.norm2.bias)
    if block.conv3 is not None:
        x = conv(x, block.conv3.weight, block.conv3.bias, stride)
    return F.leaky_relu(y + x, 0.01)


@pytest.mark.parametrize(
    ("kernel", "stride", "projected"),
    [
        ((3, 3), (2, 2), True),
        ((3, 3), (1, 1), False),
        ((1, 3, 3), (1, 2, 2), True),
        ((3, 3, 3), (1, 1, 1), False),
    ],
    ids=str,
)
def test_block_computes_the_published_formula(
    kernel: tuple[int, ...], stride: tuple[int, ...], projected: bool
) -> None:
    torch.manual_seed(0)
    block = ResidualBlock(4, 6 if projected else 4, kernel, stride, projected=projected)
    x = torch.randn(2, 4, *(8, 6, 10)[: len(kernel)])
    before = x.clone()
    y = block(x)
    torch.testing.assert_close(y, by_hand(block, x, stride), atol=1e-6, rtol=1e-5)
    assert torch.equal(x, before), "the input is needed again as a skip"


def test_first_block_changes_width_and_resolution() -> None:
    blocks = residual_blocks(3, 5, 3, (3, 3), (2, 1))
    assert [block.conv3 is not None for block in blocks] == [True, False, False]
    assert blocks(torch.zeros(1, 3, 8, 8)).shape == (1, 5, 4, 8)


def test_convolution_pads_by_half_its_kernel() -> None:
    assert convolution(2, 3, (1, 3, 5))(torch.zeros(1, 2, 4, 5, 6)).shape == (1, 3, 4, 5, 6)
