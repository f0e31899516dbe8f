"""``xlstm-unet study`` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from xlstm_unet.cli.app import app
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import write_bundle


@pytest.fixture
def bundle(spec: ModelSpec, tmp_path: Path) -> Path:
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    return write_bundle(tmp_path / "tiny", spec, network, card="Untrained.", licence="CC0 1.0")


def test_accuracy_prints_json(bundle: Path, data_set_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "report"
    arguments = ["study", "accuracy", data_set_folder, "-m", bundle, "--split", "val", "-o", output]
    result = CliRunner().invoke(app, [*map(str, arguments), "--diameter", "none", "--json"])
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert printed == json.loads((output / "accuracy.json").read_text())
    assert printed["settings"] == {"diameter": "none", "mirror": False}


def test_split_without_images_is_an_error(bundle: Path, data_set_folder: Path, tmp_path: Path) -> None:
    for command in ("accuracy", "robustness"):
        arguments = ["study", command, str(data_set_folder), "-m", str(bundle), "-o", str(tmp_path / "out")]
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert "no samples in split 'test'" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", ["big", "-"])
def test_wrong_diameter_is_wrong_usage(
    bundle: Path, data_set_folder: Path, tmp_path: Path, value: str
) -> None:
    arguments = ["study", "accuracy", str(data_set_folder), "-m", str(bundle), "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(app, [*arguments, "--diameter", value]).exit_code == 2


def test_unknown_arm_is_an_error(data_set_folder: Path, tmp_path: Path) -> None:
    arguments = ["study", "compare", str(data_set_folder), "-o", str(tmp_path / "out"), "--config", "nuclei"]
    result = CliRunner().invoke(app, [*arguments, "--steps", "2", "--arms", "none,both", "--json"])
    assert result.exit_code == 1
    assert "'both'" in json.loads(result.stdout)["error"]["message"]
