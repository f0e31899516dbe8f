"""Training configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from xlstm_unet.errors import ConfigError
from xlstm_unet.learn import TrainConfig, recipe_names
from xlstm_unet.nets import build_network, count_parameters


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_are_valid_and_small(name: str) -> None:
    config = TrainConfig.read(name)
    assert config.model.name == name
    assert config.data_licence
    assert count_parameters(build_network(config.model)) <= 4_000_000


def test_recipes_are_named() -> None:
    assert {"nuclei", "phase-cells"} <= set(recipe_names())


def test_a_recipe_can_be_renamed_and_shortened() -> None:
    config = TrainConfig.read("nuclei").adapted(name="mine", steps=7)
    assert (config.model.name, config.optimiser.steps) == ("mine", 7)
    with pytest.raises(ConfigError, match="no/name"):
        config.adapted(name="no/name")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "not valid TOML"),
        ("seed = 1", "model: Field required"),
        ("\x00", "not valid TOML"),
    ],
)
def test_files_that_are_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        TrainConfig.read(path)


def test_a_missing_file_names_the_recipes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nuclei"):
        TrainConfig.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("part", "fields", "message"),
    [
        ("optimiser", {"lr": 1.0}, "Extra inputs"),
        ("optimiser", {"steps": 0}, "greater than or equal to 1"),
        ("geometry", {"scale": [2.0, 0.5]}, "expected the smaller first"),
        ("geometry", {"flips": [True]}, "1 entries, expected 2"),
        ("sampling", {"crops": [{"size": [64, 64, 64]}]}, "3 entries, expected 2"),
        ("losses", {"scales": [1.0, 1.0, 1.0]}, "expected 1 to 2"),
        ("losses", {"distance": float("nan")}, "finite"),
    ],
)
def test_fields_out_of_range(
    tiny_fields: dict[str, Any], part: str, fields: dict[str, Any], message: str
) -> None:
    tiny_fields[part] = tiny_fields.get(part, {}) | fields
    with pytest.raises(ValidationError, match=message):
        TrainConfig.model_validate(tiny_fields)
