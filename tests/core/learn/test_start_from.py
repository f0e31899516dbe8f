"""Starting a new model from the weights of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_unet.errors import ConfigError, ModelError
from xlstm_unet.learn import Dataset, TrainConfig, TrainEvent, train
from xlstm_unet.learn.start_from import copy_fitting, start_config, starting_weights
from xlstm_unet.nets import Network, build_network


def _network(config: TrainConfig, seed: int) -> Network:
    return build_network(config.model, generator=torch.Generator().manual_seed(seed))


def test_what_fits_is_copied(tiny: TrainConfig) -> None:
    old = _network(tiny, 0).state_dict()
    model = tiny.model.model_copy(update={"input_channels": 1, "channel_names": ()})
    new = _network(tiny.model_copy(update={"model": model}), 1)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    fresh = copy_fitting(new, old)
    assert fresh
    assert all(name.startswith("stem.") for name in fresh)
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, before[name] if name in fresh else old[name]), name


def test_heads_are_kept_by_a_model_that_finds_the_same(tiny: TrainConfig) -> None:
    weights = _network(tiny, 0).state_dict()
    heads = {name for name in weights if ".head." in name}
    assert heads
    again = start_config(tiny.model, "again").model
    assert starting_weights(tiny.model, weights, again).keys() == weights.keys()
    recoloured = tiny.model.labels[0].model_copy(update={"color": (1, 2, 3)})
    same = tiny.model.model_copy(update={"labels": (recoloured,), "patch_size": (64, 64)})
    assert starting_weights(tiny.model, weights, same).keys() == weights.keys()
    renamed = tiny.model.labels[0].model_copy(update={"name": "something else"})
    other = tiny.model.model_copy(update={"labels": (renamed,)})
    assert starting_weights(tiny.model, weights, other).keys() == weights.keys() - heads
    classes = start_config(tiny.model, "axons", labels=("myelin", "axon")).model
    assert starting_weights(tiny.model, weights, classes).keys() == weights.keys() - heads


def test_training_begins_at_the_given_weights(
    pair: Dataset, tiny_fields: dict[str, Any], tmp_path: Path
) -> None:
    # Too slow a rate to go anywhere: what comes out is what went in.
    tiny_fields["optimiser"] = {"steps": 1, "warmup": 0, "learning_rate": 1e-12, "weight_decay": 0.0}
    config = TrainConfig.model_validate(tiny_fields)
    old = _network(config, 5).state_dict()
    events: list[TrainEvent] = []
    found = train(
        config, pair, tmp_path, device="cpu", start=old, on_event=events.append
    ).network.state_dict()
    for name, tensor in found.items():
        assert torch.allclose(tensor, old[name], atol=1e-6), name
    assert any(event.message == f"New weights: 0 of {len(old)} tensors." for event in events)


def test_configuration_of_other_labels_keeps_what_is_known_of_the_input(tiny: TrainConfig) -> None:
    spec = tiny.model.model_copy(update={"object_diameter": 20.0})
    config = start_config(spec, "axons", labels=("myelin", "axon"))
    assert config.model.name == "axons"
    assert config.model.task == "classes"
    assert [(label.value, label.name) for label in config.model.labels] == [(1, "myelin"), (2, "axon")]
    assert config.model.network == spec.network
    assert config.model.normalisation == spec.normalisation
    assert config.model.object_diameter is None
    same = start_config(spec, "cells").model
    assert (same.task, same.labels) == (spec.task, spec.labels)


def test_a_given_configuration_takes_the_network_alone(tiny: TrainConfig) -> None:
    wider = tiny.model.network.model_copy(update={"features": (12, 24, 24)})
    spec = tiny.model.model_copy(update={"network": wider})
    config = start_config(spec, "new", config=tiny)
    assert config.model.network == wider
    assert config.model.patch_size == tiny.model.patch_size
    assert config.optimiser == tiny.optimiser
    with pytest.raises(ConfigError, match="twice"):
        start_config(spec, "new", labels=("a",), config=tiny)
    with pytest.raises(ConfigError, match="name"):
        start_config(spec, "no name")


def test_several_networks_are_refused(tiny: TrainConfig) -> None:
    with pytest.raises(ModelError, match="3 networks"):
        start_config(tiny.model.model_copy(update={"folds": 3}), "new")
