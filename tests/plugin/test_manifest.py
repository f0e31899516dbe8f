"""What napari is told about the plugin, and that it opens quickly: no torch in napari's process."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from npe2.cli import app
from typer.testing import CliRunner

import napari_xlstm_unet
from napari_xlstm_unet import samples
from xlstm_unet.samples import SAMPLES

FOLDER = Path(napari_xlstm_unet.__file__).parent


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_distribution("xlstm-unet")


def test_validate(manifest: PluginManifest) -> None:
    result = CliRunner().invoke(app, ["validate", str(FOLDER / "napari.yaml")])
    assert result.exit_code == 0, result.output
    manifest.validate_imports()


def test_menus_and_categories(manifest: PluginManifest) -> None:
    assert manifest.display_name == "xLSTM-UNet"
    assert [str(category) for category in manifest.categories] == ["Segmentation", "Annotation"]
    assert [item.command for item in manifest.contributions.menus["napari/layers/segment"]] == [
        "xlstm-unet.dock"
    ]


def test_every_sample_opens(manifest: PluginManifest) -> None:
    entries = manifest.contributions.sample_data or []
    assert [entry.key for entry in entries] == [sample.name for sample in SAMPLES]
    for entry in entries:
        [(data, keywords, kind)] = getattr(samples, entry.key)()
        assert kind == "image"
        if entry.key.endswith("_mri"):
            assert {str(unit) for unit in keywords["units"]} == {"mm"}
        else:
            assert keywords["rgb"] == (np.ndim(data) == 3)
        assert Path(keywords["metadata"]["licence"]).is_file()


def test_no_torch_in_naparis_process() -> None:
    modules = sorted(f"napari_xlstm_unet.{path.stem}" for path in FOLDER.glob("[a-z]*.py"))
    code = (
        "import importlib, sys\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "assert not {'torch', 'triton'} & set(sys.modules), 'torch is there'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_private_part_of_napari_is_used() -> None:
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not [name for name in names if name.startswith("napari._")], path.name
            assert not [name for name in names if name.split(".")[0] in ("torch", "triton", "PyQt6")], (
                path.name
            )
