from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from xlstm_unet.nets import ViLLayer, build_network
from xlstm_unet.nets.norm import InstanceNorm


def test_same_generator_same_weights(make_spec) -> None:
    spec = make_spec("dense")
    one, two, other = (build_network(spec, generator=torch.Generator().manual_seed(s)) for s in (3, 3, 4))
    state = two.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in one.state_dict().items())
    assert not torch.equal(one.stem[0].conv1.weight, other.stem[0].conv1.weight)


def test_own_generator_leaves_the_global_one_alone(make_spec) -> None:
    before = torch.random.get_rng_state()
    build_network(make_spec("dense"), generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_without_generator_the_global_one_decides(make_spec) -> None:
    torch.manual_seed(5)
    one = build_network(make_spec())
    torch.manual_seed(5)
    two = build_network(make_spec())
    assert torch.equal(one.stem[0].conv1.weight, two.stem[0].conv1.weight)


def test_distributions_are_the_released_ones(make_spec) -> None:
    network = build_network(
        make_spec("dense", features=(32, 64, 128, 128)), generator=torch.Generator().manual_seed(0)
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5000:
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx(
                math.sqrt(2 / (1 + 0.01**2) / fan_in), rel=0.05
            )
            assert not module.bias.any()
        if isinstance(module, InstanceNorm):
            assert (module.weight == 1).all()
            assert not module.bias.any()
    vil = [m for m in network.modules() if isinstance(m, ViLLayer)][2]
    width, w = 128, vil.weights
    assert w.proj_up.std().item() == pytest.approx(math.sqrt(2 / (5 * width)), rel=0.05)
    assert w.q.std().item() == pytest.approx(math.sqrt(2 / (5 * width)), rel=0.15)
    assert w.proj_down.std().item() == pytest.approx(2 / math.sqrt(width), rel=0.05)
    assert w.fgate_bias.tolist() == [3, 4, 5, 6]
    assert 0 < w.igate_bias.abs().max() < 0.5
    assert (w.skip == 1).all()
    assert not any(t.any() for t in (w.norm, w.outnorm, w.igate_weight, w.fgate_weight))
    assert w.conv_weight.abs().max() <= 0.5
