"""Small untrained models as bundles, and the command line as a process or in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from xlstm_unet.cli.app import app
from xlstm_unet.nets import build_network
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import write_bundle

Run = Callable[..., subprocess.CompletedProcess[str]]


def network_spec(dimension: int) -> NetworkSpec:
    return NetworkSpec(
        variant="bot",
        features=(4, 8),
        kernels=((3,) * dimension,) * 2,
        strides=((1,) * dimension, (2,) * dimension),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )


def write_untrained(folder: Path, spec: ModelSpec) -> Path:
    network = build_network(spec, generator=torch.Generator().manual_seed(3))
    return write_bundle(folder, spec, network, card="An untrained network.", licence="CC0 1.0")


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle for 2D instances, gray or RGB."""
    spec = ModelSpec(
        name="cells",
        dimension=2,
        input_channels=3,
        accepts_gray=True,
        task="instances",
        labels=(Label(value=1, name="cell"),),
        network=network_spec(2),
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(64, 64),
        object_diameter=12.0,
    )
    return write_untrained(tmp_path_factory.mktemp("models") / "cells", spec)


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundle for 3D classes."""
    spec = ModelSpec(
        name="parts",
        dimension=3,
        task="classes",
        labels=(Label(value=1, name="anterior"), Label(value=2, name="posterior")),
        network=network_spec(3),
        normalisation=(Normalisation(scheme="zscore"),),
        patch_size=(32, 32, 32),
    )
    return write_untrained(tmp_path_factory.mktemp("models") / "parts", spec)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run the command line as a process of its own, with an empty home for models."""
    home = tmp_path_factory.mktemp("home")

    def start(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "xlstm_unet.cli", *map(str, arguments)]
        environment = os.environ | {"XLSTM_UNET_HOME": str(home), "COLUMNS": "200"}
        return subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=120, env=environment, **options
        )

    return start


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Any:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return call


@pytest.fixture(scope="session")
def image(data: Path) -> Path:
    """One real gray image."""
    return data / "nuclei" / "images" / "fluo_small.png"


def parse(text: str) -> Any:
    """Parse JSON that has to be all there is on stdout."""
    return json.loads(text)
