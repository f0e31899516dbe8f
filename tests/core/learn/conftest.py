"""Small trainings for the tests of learning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from xlstm_unet.learn import Dataset, TrainConfig, open_dataset


@pytest.fixture(scope="session")
def nuclei(data: Path) -> Dataset:
    """Seven real images, one of each modality; one of them is kept for validation."""
    return open_dataset(data / "nuclei")


@pytest.fixture(scope="session")
def pair_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set of two of these images, the smallest."""
    folder = tmp_path_factory.mktemp("pair") / "nuclei"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
        for name in ("fluo_small", "hist_purple_on_white"):
            shutil.copy(data / "nuclei" / part / f"{name}.png", folder / part)
    return folder


@pytest.fixture(scope="session")
def pair(pair_folder: Path) -> Dataset:
    """Two real images, one for training and one for validation."""
    return open_dataset(pair_folder)


@pytest.fixture
def tiny_fields() -> dict[str, Any]:
    """Fields of a configuration that takes a fraction of a second a step."""
    return {
        "model": {
            "name": "tiny",
            "dimension": 2,
            "input_channels": 3,
            "accepts_gray": True,
            "task": "instances",
            "labels": [{"value": 1, "name": "nucleus"}],
            "normalisation": [{"scheme": "percentile"}],
            "patch_size": [64, 64],
            "network": {
                "variant": "bot",
                "features": [8, 16, 16],
                "kernels": [[3, 3]] * 3,
                "strides": [[1, 1], [2, 2], [2, 2]],
                "encoder_blocks": [1, 1, 1],
                "decoder_blocks": [1, 1],
            },
        },
        "sampling": {"batch": 2, "crops": [{"size": [64, 64]}, {"size": [32, 64]}]},
        "optimiser": {"steps": 12, "warmup": 3},
        "validation": {"interval": 4},
    }


@pytest.fixture
def tiny(tiny_fields: dict[str, Any]) -> TrainConfig:
    """The configuration of those fields."""
    return TrainConfig.model_validate(tiny_fields)
