from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlstm_unet.nets.norm import InstanceNorm

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def normed(x: torch.Tensor, seed: int = 0) -> tuple[InstanceNorm, torch.Tensor]:
    """Return a norm with random weights, and what it should give (by float64)."""
    norm = InstanceNorm(x.shape[1])
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(norm.channels, generator=generator))
        norm.bias.copy_(torch.randn(norm.channels, generator=generator))
        expected = F.instance_norm(x.double(), None, None, norm.weight.double(), norm.bias.double())
    return norm, expected


def image(*shape: int) -> torch.Tensor:
    """Values whose mean is several standard deviations from zero, as behind a convolution with bias."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 2 + 5


@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 8, 256, 256), (2, 3, 4, 5, 6)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "gradients"])
def test_equals_instance_norm(shape: tuple[int, ...], layout: str, gradients: bool) -> None:
    x = image(*shape)
    norm, expected = normed(x)
    if layout == "channels_last":
        x = x.to(memory_format=LAYOUTS[x.ndim])
    with torch.set_grad_enabled(gradients):
        y = norm(x)
    assert (y - expected).abs().max() < 5e-6
    if not gradients:
        assert y.stride() == x.stride()


def test_channels_last_does_not_lose_digits_on_large_maps() -> None:
    x = image(1, 4, 1024, 512).to(memory_format=torch.channels_last)
    norm, expected = normed(x)
    with torch.inference_mode():
        assert (norm(x) - expected).abs().max() < 5e-6


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_bfloat16_is_exact_up_to_its_own_rounding(layout: torch.memory_format) -> None:
    x = image(2, 8, 32, 40).bfloat16().to(memory_format=layout)
    norm, expected = normed(x)
    with torch.inference_mode():
        y = norm(x)
    assert y.dtype == torch.bfloat16
    assert ((y - expected).abs() <= 0.01 * expected.abs() + 0.01).all()


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "gradients"])
def test_one_position_gives_the_bias(gradients: bool) -> None:
    x = image(2, 3, 1, 1)
    norm, _ = normed(image(2, 3, 2, 2))
    with torch.set_grad_enabled(gradients):
        y = norm(x)
    # Rounding is blown up by 1 / sqrt(eps).
    torch.testing.assert_close(y, norm.bias.view(1, 3, 1, 1).expand(2, 3, 1, 1), atol=1e-3, rtol=0)


def test_gradients_in_evaluation_mode_reach_the_input() -> None:
    x = image(1, 2, 4, 4).double().to(memory_format=torch.channels_last).requires_grad_()
    norm = InstanceNorm(2).double().eval()
    assert torch.autograd.gradcheck(norm, (x,))
