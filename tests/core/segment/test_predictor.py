"""The network over tiles."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np
import pytest
import torch

from xlstm_unet.errors import CancelledError, DeviceError, ModelError
from xlstm_unet.nets import Network
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.spec import Label, ModelSpec

MakeSpec = Callable[..., ModelSpec]
MakeNetwork = Callable[[ModelSpec], Network]


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape, dtype=np.float32)


def test_one_tile_gives_what_the_network_gives(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    spec = make_spec()
    network = make_network(spec).eval()
    array = noise(1, 64, 96)
    maps = Predictor(spec, network, device="cpu")(array)
    with torch.no_grad():
        logits = network(torch.from_numpy(array[None]))[0]
    assert maps.dtype == np.float16
    # The CPU may compute in bfloat16, which random weights on noise amplify.
    assert np.abs(maps[0] - (1 - logits[:3].softmax(0)[0].numpy())).mean() < 0.03
    assert np.abs(maps[1] - logits[3].clamp(0, 1).numpy()).mean() < 0.03


def test_classes_are_probabilities(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    spec = make_spec(task="classes", labels=(Label(value=1, name="a"), Label(value=2, name="b")))
    maps = Predictor(spec, make_network(spec), device="cpu")(noise(1, 50, 61))
    assert maps.shape == (3, 50, 61)
    np.testing.assert_allclose(maps.astype(np.float32).sum(0), 1, atol=2e-3)


def test_tiles_and_whole_agree_on_learned_objects(
    disc_model: tuple[ModelSpec, Network], discs: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    from xlstm_unet.images import normalise
    from xlstm_unet.measure import score_instances
    from xlstm_unet.segment import decode_instances

    spec, network = disc_model
    image, _ = discs((300, 280), count=250)
    array = normalise(image[None], spec.normalisation)
    whole = Predictor(spec, network, device="cpu", tile=512)(array)
    tiles = Predictor(spec, network, device="cpu", tile=64)(array)
    assert score_instances(decode_instances(*tiles), decode_instances(*whole)).f1_50 >= 0.98


def test_mirroring_makes_the_result_symmetric(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    spec = make_spec()
    predict = Predictor(spec, make_network(spec), device="cpu")
    array = noise(1, 64, 64)
    plain = predict(array, mirror=True).astype(np.float32)
    flipped = predict(np.ascontiguousarray(array[:, ::-1]), mirror=True)[:, ::-1].astype(np.float32)
    np.testing.assert_allclose(plain, flipped, atol=0.02)
    assert np.abs(plain - predict(array)).max() > 0.02


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 3, 200), (1, 17, 5, 9)])
def test_any_size(make_spec: MakeSpec, make_network: MakeNetwork, shape: tuple[int, ...]) -> None:
    spec = make_spec(len(shape) - 1, patch_size=(16,) * (len(shape) - 1))
    maps = Predictor(spec, make_network(spec), device="cpu")(noise(*shape))
    assert maps.shape == (2, *shape[1:])
    assert np.isfinite(maps.astype(np.float32)).all()


def test_a_network_for_one_size_gets_tiles_of_that_size(
    make_spec: MakeSpec, make_network: MakeNetwork
) -> None:
    spec = make_spec(patch_size=(16, 16))
    spec = spec.model_copy(
        update={"network": spec.network.model_copy(update={"variant": "enc", "channel_tokens": True})}
    )
    network = make_network(spec)
    if network.fixed_size is None:
        pytest.skip("this shape has no channel tokens")
    assert Predictor(spec, network, device="cpu")(noise(1, 9, 40)).shape == (2, 9, 40)
    with pytest.raises(ModelError, match="takes only"):
        Predictor(spec, network, device="cpu", tile=32)


def test_default_tiles_are_bounded(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    def tile(**fields: object) -> tuple[int, ...]:
        spec = make_spec(**fields)
        return Predictor(spec, make_network(spec), device="cpu").tile

    assert tile(patch_size=(256, 256)) == (1024, 1024)
    assert tile(patch_size=(512, 512), features=(32, 8)) == (512, 512)
    assert tile(dimension=3, patch_size=(20, 64, 64)) == (20, 64, 64)


@pytest.mark.parametrize("tile", [0, (64,), (64, 64, 64), (-1, 64)])
def test_impossible_tiles_are_refused(
    make_spec: MakeSpec, make_network: MakeNetwork, tile: int | tuple[int, ...]
) -> None:
    spec = make_spec()
    with pytest.raises(ModelError, match="tile is"):
        Predictor(spec, make_network(spec), device="cpu", tile=tile)


def test_unknown_device_is_refused(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    spec = make_spec()
    with pytest.raises(DeviceError):
        Predictor(spec, make_network(spec), device="abacus")


def test_cancel_is_asked_between_layers(make_spec: MakeSpec, make_network: MakeNetwork) -> None:
    spec = make_spec(features=(32, 32, 32))
    predict = Predictor(spec, make_network(spec), device="cpu", tile=512)
    asked: list[float] = []

    def cancel() -> bool:
        asked.append(perf_counter())
        return len(asked) > 12

    with pytest.raises(CancelledError):
        predict(noise(1, 512, 512), cancel=cancel)
    assert len(asked) == 13, "one tile, yet asked many times"
    assert predict(noise(1, 64, 64)).shape == (2, 64, 64), "and the network is as before"
    assert len(asked) == 13


def test_short_memory_is_met_with_smaller_tiles(
    disc_model: tuple[ModelSpec, Network], discs: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> None:
    spec, network = disc_model
    array = noise(1, 300, 300)
    usual = Predictor(spec, network, device="cpu", tile=512)
    expected = usual(array)
    short = Predictor(spec, network, device="cpu", tile=512)

    def refuse(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if inputs[0].numel() > 150 * 150:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    copy = next(iter(short._copies.values()))
    copy.register_forward_pre_hook(refuse)
    maps = short(array)
    assert short.tile == (128, 128)
    assert "Memory was short for 1 tile of 512 x 512" in short.memory.note
    assert np.abs(maps.astype(np.float32) - expected.astype(np.float32)).mean() < 0.1
