"""Starting a new model from the weights of another one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_unet.errors import ConfigError, ModelError
from xlstm_unet.learn import Dataset, TrainConfig, TrainEvent, train
from xlstm_unet.learn.start_from import copy_fitting, start_config
from xlstm_unet.nets import Network, build_network


def _network(config: TrainConfig, seed: int) -> Network:
    return build_network(config.model, generator=torch.Generator().manual_seed(seed))


def test_all_but_heads_and_other_shapes_is_copied(tiny: TrainConfig) -> None:
    old = _network(tiny, 0).state_dict()
    model = tiny.model.model_copy(update={"input_channels": 1, "channel_names": ()})
    new = _network(tiny.model_copy(update={"model": model}), 1)
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    fresh = copy_fitting(new, old)
    heads = {name for name in before if ".head." in name}
    assert heads
    assert heads < set(fresh)
    first = [name for name in fresh if name not in heads]
    assert first
    assert all(name.startswith("stem.") for name in first)
    for name, tensor in new.state_dict().items():
        assert torch.equal(tensor, before[name] if name in fresh else old[name]), name


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
        same = torch.allclose(tensor, old[name], atol=1e-6)
        assert same != (".head." in name and name.endswith("weight")), name
    assert any("New weights" in event.message for event in events)


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
