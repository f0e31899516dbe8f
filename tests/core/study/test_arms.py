"""Variants of a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_unet.errors import ConfigError
from xlstm_unet.learn import TrainConfig
from xlstm_unet.nets import Network, build_network
from xlstm_unet.nets.vil import ViLLayer
from xlstm_unet.study.arms import ARMS, make_arm, run_config
from xlstm_unet.study.baselines import PlainUNet


@pytest.mark.parametrize(
    ("name", "layers"), [("none", 0), ("bot", 1), ("enc", 1), ("dense", 3), ("plain", 0)]
)
def test_arms_have_their_layers(tiny: TrainConfig, name: str, layers: int) -> None:
    arm = make_arm(name, tiny)
    network = build_network(arm.config.model, network_type=arm.network_type)
    assert sum(isinstance(module, ViLLayer) for module in network.modules()) == layers
    assert arm.name == name
    assert arm.network_type is (PlainUNet if name == "plain" else Network)
    assert set(ARMS) == {"none", "bot", "enc", "dense", "plain"}


def test_dense_reads_in_both_directions(tiny: TrainConfig) -> None:
    network = build_network(make_arm("dense", tiny).config.model)
    assert [m.reverse for m in network.modules() if isinstance(m, ViLLayer)] == [False, True, False]


def test_a_configuration_file_is_an_arm(tiny: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "wide.toml"
    path.write_text(
        '[model]\nname = "wide"\ndimension = 2\ntask = "instances"\npatch_size = [64, 64]\n'
        'labels = [{ value = 1, name = "a" }]\nnormalisation = [{ scheme = "none" }]\n'
        '[model.network]\nvariant = "bot"\nfeatures = [4, 8]\nkernels = [[3, 3], [3, 3]]\n'
        "strides = [[1, 1], [2, 2]]\nencoder_blocks = [1, 1]\ndecoder_blocks = [1]\n"
    )
    arm = make_arm(str(path), tiny)
    assert (arm.name, arm.config.model.network.features) == ("wide", (4, 8))


def test_unknown_arm_is_refused(tiny: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="'both'"):
        make_arm("both", tiny)


def test_a_run_is_scored_once_with_a_schedule_of_its_length(tiny: TrainConfig) -> None:
    config = run_config(tiny, steps=1000, seed=5)
    assert TrainConfig.model_validate(config.model_dump()) == config
    assert config.validation.interval == config.optimiser.steps == 1000
    assert config.optimiser.average == pytest.approx(0.98)
    assert config.seed == 5
    assert run_config(tiny, steps=1, seed=0).optimiser.average == 0
