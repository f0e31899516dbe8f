from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from xlstm_unet.errors import ModelError
from xlstm_unet.nets import ViLLayer, build_network, count_parameters
from xlstm_unet.nets.blocks import ResidualBlock
from xlstm_unet.nets.unet import pad_to_multiple

ABDOMEN_3D = ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
# patch, stages, input channels, labels, strides, millions of parameters of bot and enc, ViL widths of enc
RELEASED = {
    "abdomen 3D": ((48, 160, 224), 6, 1, 13, ABDOMEN_3D, 42.1, 43.95, {3: 256, 4: 320, 5: 210}),
    "BraTS": ((128, 128, 128), 6, 4, 3, None, 42.1, 43.7, {3: 256, 4: 320, 5: 64}),
    "endoscopy": ((384, 640), 7, 3, 7, None, 47.45, 47.7, {2: 128, 4: 512, 6: 60}),
    "microscopy": ((512, 512), 8, 3, 2, None, 64.7, 64.0, {3: 256, 5: 256, 7: 16}),
    "abdomen 2D": ((320, 320), 7, 1, 13, None, 47.5, 47.0, {2: 128, 4: 400, 6: 25}),
}


def vil_layers(network: torch.nn.Module) -> list[ViLLayer]:
    return [module for module in network.modules() if isinstance(module, ViLLayer)]


@pytest.mark.parametrize("name", RELEASED)
def test_sizes_of_the_released_networks(make_spec, name: str) -> None:
    patch, stages, channels, labels, strides, bot, enc, widths = RELEASED[name]
    options = {
        "base": 32,
        "widest": 512 if len(patch) == 2 else 320,
        "channels": channels,
        "labels": labels,
        "strides": strides,
    }
    with torch.device("meta"):
        networks = [build_network(make_spec(v, patch, stages, **options)) for v in ("bot", "enc")]
    decimals = [len(str(millions).partition(".")[2]) for millions in (bot, enc)]
    found = [round(count_parameters(n) / 1e6, d) for n, d in zip(networks, decimals, strict=True)]
    assert found == [bot, enc]
    layers = {s: stage.mixer for s, stage in enumerate(networks[1].encoder) if vil_layers(stage)}
    assert {s: layer.width for s, layer in layers.items()} == widths


def test_enc_has_residual_blocks_where_released(make_spec) -> None:
    def kinds(dimension: int) -> list[type]:
        with torch.device("meta"):
            network = build_network(make_spec("enc", (64,) * dimension, 6))
        return [type(stage.mixer) for stage in network.encoder]

    none = torch.nn.Identity
    assert kinds(2) == [none, ResidualBlock, none, ViLLayer, none, ViLLayer]
    assert kinds(3) == [ResidualBlock] * 3 + [ViLLayer] * 3


@pytest.mark.parametrize("variant", ["bot", "enc", "dense"])
@pytest.mark.parametrize("patch", [(32, 48), (16, 16, 32)], ids=["2D", "3D"])
def test_all_scales_finest_first(make_spec, variant: str, patch: tuple[int, ...]) -> None:
    network = build_network(make_spec(variant, patch, 4, channels=3, labels=4))
    x = torch.randn(2, 3, *patch)
    with torch.inference_mode():
        scales = network(x, all_scales=True)
        finest = network(x)
    assert [s.shape for s in scales] == [(2, 5, *(n // 2**level for n in patch)) for level in range(3)]
    assert torch.equal(finest, scales[0])
    assert finest.dtype == torch.float32


@pytest.mark.parametrize("size", [(1, 1), (7, 33), (32, 48), (50, 19), (13, 9, 5)], ids=str)
@pytest.mark.parametrize("variant", ["bot", "dense"])
def test_any_size(make_spec, variant: str, size: tuple[int, ...]) -> None:
    patch = (32,) * len(size)
    network = build_network(make_spec(variant, patch, 4))
    x = torch.randn(1, 1, *size)
    with torch.inference_mode():
        y = network(x)
        scales = network(x, all_scales=True)
    assert y.shape == (1, 3, *size)
    assert torch.isfinite(y).all()
    assert torch.equal(scales[0], y)


def test_padding_repeats_the_far_edge_and_is_cropped(make_spec) -> None:
    network = build_network(make_spec("bot", (32, 32), 3))
    x = torch.randn(1, 1, 30, 21)
    padded = F.pad(x, (0, 3, 0, 2), mode="replicate")
    assert torch.equal(pad_to_multiple(x, (4, 4)), padded)
    with torch.inference_mode():
        assert torch.equal(network(x), network(padded)[..., :30, :21])


def test_channel_tokens_take_only_the_patch_size(make_spec) -> None:
    network = build_network(make_spec("enc", (32, 48), 4, widest=32, base=8))
    assert network.fixed_size == (32, 48)
    with pytest.raises(ModelError, match=r"\(64, 48\).*\(32, 48\)"):
        network(torch.zeros(1, 1, 64, 48))
    free = build_network(make_spec("enc", (32, 48), 4, widest=32, base=8, channel_tokens=False))
    assert free.fixed_size is None
    assert free(torch.zeros(1, 1, 40, 17)).shape == (1, 3, 40, 17)


def test_channel_tokens_need_a_patch_of_whole_strides(make_spec) -> None:
    with pytest.raises(ModelError, match=r"patch_size is \(32, 44\).*\(8, 8\)"):
        build_network(make_spec("enc", (32, 44), 4, widest=32, base=8))


@pytest.mark.parametrize(
    "shape", [(1, 2, 32, 48), (1, 1, 32), (1, 1, 8, 32, 48), (0, 1, 32, 48), (1, 1, 0, 8)], ids=str
)
def test_wrong_input_is_refused(make_spec, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="expected"):
        build_network(make_spec("bot"))(torch.zeros(shape))


def test_dense_has_vil_at_every_stage_in_alternating_direction(make_spec) -> None:
    network = build_network(make_spec("dense", (32, 48), 5, direction="paired"))
    assert all(isinstance(stage.mixer, ViLLayer) for stage in network.encoder)
    assert [layer.reverse for layer in vil_layers(network)] == [False, True, False, True, False]
    assert not any(layer.channel_tokens for layer in vil_layers(network))
    assert not any(layer.reverse for layer in vil_layers(build_network(make_spec("dense"))))


def test_direction_changes_the_result(make_spec) -> None:
    networks = [
        build_network(make_spec("dense", direction=d), generator=torch.Generator().manual_seed(0))
        for d in ("forward", "paired")
    ]
    x = torch.randn(1, 1, 32, 48)
    with torch.inference_mode():
        assert not torch.allclose(networks[0](x), networks[1](x), atol=1e-3)


@pytest.mark.parametrize("variant", ["bot", "enc", "dense"])
def test_mixer_none_leaves_only_the_vil_layers_out(make_spec, variant: str) -> None:
    full, plain = (build_network(make_spec(variant, mixer=m)) for m in ("vil", "none"))
    assert not vil_layers(plain)
    assert plain.fixed_size is None
    assert count_parameters(plain) == count_parameters(full) - sum(map(count_parameters, vil_layers(full)))


@pytest.mark.parametrize("variant", ["bot", "enc", "dense"])
@pytest.mark.parametrize("patch", [(32, 48), (16, 32, 32)], ids=["2D", "3D"])
def test_gradients_reach_every_parameter(make_spec, variant: str, patch: tuple[int, ...]) -> None:
    network = build_network(make_spec(variant, patch, 4), generator=torch.Generator().manual_seed(0))
    scales = network(torch.randn(2, 1, *patch), all_scales=True)
    sum(scale.square().mean() for scale in scales).backward()
    # A bias in front of a normalisation changes nothing, so its gradient is zero up to rounding.
    idle = (".conv1.bias", ".conv2.bias")
    dead = [
        name
        for name, p in network.named_parameters()
        if p.grad is None or (not name.endswith(idle) and not p.grad.abs().max() > 0)
    ]
    assert dead == []


def test_gradients_agree_with_differences(make_spec) -> None:
    network = build_network(make_spec("dense", (8, 8), 3, base=2, direction="paired")).double()
    x = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (x,), fast_mode=True)


def test_finest_skip_is_left_out_where_asked(make_spec) -> None:
    with_skip, without = (build_network(make_spec("bot", finest_skip=f)) for f in (True, False))
    assert with_skip.decoder[-1].blocks[0].conv1.in_channels == 8
    assert without.decoder[-1].blocks[0].conv1.in_channels == 4
    assert without.decoder[-2].blocks[0].conv1.in_channels == 16
