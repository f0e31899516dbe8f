from __future__ import annotations

import pytest
import torch

from xlstm_kernels import vil_layer
from xlstm_unet.nets.initialise import initialise
from xlstm_unet.nets.vil import ViLLayer, block_size


def layer(width: int, **options: bool) -> ViLLayer:
    """Return an initialised layer whose gates do depend on the input."""
    made = ViLLayer(width, **options)
    generator = torch.Generator().manual_seed(0)
    initialise(made, generator)
    with torch.no_grad():
        for gate in (made.weights.igate_weight, made.weights.fgate_weight):
            gate.normal_(std=0.1, generator=generator)
    return made


@pytest.mark.parametrize(("width", "block"), [(16, 4), (100, 4), (25, 2), (30, 2), (1, 2)])
def test_block_size(width: int, block: int) -> None:
    assert block_size(width) == block
    weights = ViLLayer(width).weights
    assert weights.q.shape == (2 * width // block, block, block)
    assert weights.igate_weight.shape == (block, 6 * width)


@pytest.mark.parametrize("shape", [(2, 8, 3, 5), (1, 6, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_tokens_are_positions_in_row_major_order(shape: tuple[int, ...], layout: str) -> None:
    x = torch.randn(shape)
    vil = layer(shape[1])
    expected = vil_layer(x.flatten(2).mT, vil.weights).mT.reshape(shape)
    if layout == "channels_last":
        x = x.to(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    y = vil(x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-5)
    if layout == "channels_last":
        assert y.is_contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)


def test_reverse_scans_from_the_last_token() -> None:
    forward, reverse = layer(8), layer(8, reverse=True)
    x = torch.randn(1, 8, 4, 6)
    torch.testing.assert_close(reverse(x), forward(x.flip(2, 3)).flip(2, 3), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(reverse(x), forward(x), atol=1e-3)


def test_channel_tokens_swap_the_roles() -> None:
    vil = layer(12, channel_tokens=True)
    x = torch.randn(2, 20, 3, 4)
    expected = vil_layer(x.flatten(2), vil.weights).reshape(x.shape)
    torch.testing.assert_close(vil(x), expected, atol=1e-5, rtol=1e-5)


def test_computes_in_float32_under_autocast_and_in_bfloat16() -> None:
    vil = layer(8)
    x = torch.randn(1, 8, 4, 4).bfloat16()
    exact = vil(x.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(vil(x.float()), exact)
    assert torch.equal(vil(x), exact.bfloat16())


def test_weights_are_the_parameters() -> None:
    vil = layer(8)
    assert set(vil.weights._asdict()) == {name for name, _ in vil.named_parameters()}
    vil(torch.randn(1, 8, 4, 4)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in vil.parameters())
