"""Small trainings for the tests of learning."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel as nib
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


@pytest.fixture(scope="session")
def raw_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data set in nnU-Net's raw layout: a real volume twice, once with its affine turned."""
    folder = tmp_path_factory.mktemp("raw") / "Dataset001_Hippocampus"
    described = {
        "channel_names": {"0": "T1"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    for part, ending in (("images", "_0000"), ("labels", "")):
        (folder / f"{part}Tr").mkdir(parents=True)
        source = data / "hippocampus" / part / "hippocampus_125.nii.gz"
        shutil.copy(source, folder / f"{part}Tr" / f"plain{ending}.nii.gz")
        volume: Any = nib.load(source)
        turned = volume.as_reoriented(nib.orientations.axcodes2ornt("LPS"))
        nib.save(turned, folder / f"{part}Tr" / f"turned{ending}.nii.gz")
    (folder / "dataset.json").write_text(json.dumps(described))
    return folder


@pytest.fixture(scope="session")
def volumes(raw_folder: Path) -> Dataset:
    """Two real volumes, one for training and one for validation."""
    return open_dataset(raw_folder)


@pytest.fixture
def tiny_volume_fields() -> dict[str, Any]:
    """Fields of a configuration for volumes that takes a fraction of a second a step."""
    return {
        "model": {
            "name": "tiny",
            "dimension": 3,
            "task": "classes",
            "labels": [{"value": 1, "name": "anterior"}, {"value": 2, "name": "posterior"}],
            "normalisation": [{"scheme": "zscore"}],
            "orientation": "SAR",
            "spacing": [1.0, 1.0, 1.0],
            "spacing_unit": "mm",
            "patch_size": [16, 24, 16],
            "network": {
                "variant": "bot",
                "features": [4, 8, 8],
                "kernels": [[3, 3, 3]] * 3,
                "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]],
                "encoder_blocks": [1, 1, 1],
                "decoder_blocks": [1, 1],
            },
        },
        "sampling": {"batch": 2},
        "geometry": {"tilt_degrees": 20.0, "rotation_degrees": 20.0, "flips": [False, False, True]},
        "losses": {"scales": [1.0, 0.5]},
        "optimiser": {"steps": 12, "warmup": 3},
        "validation": {"interval": 4},
    }


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
