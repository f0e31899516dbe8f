"""A tiny untrained model, and small real samples of two modalities."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import imagecodecs
import pytest
import torch

from xlstm_unet.learn import Dataset, TrainConfig, open_dataset
from xlstm_unet.nets import build_network
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import ModelSpec

SIDE = 128
NAMES = {"fluo_small": "fluorescence", "hist_purple_on_white": "histology"}

CONFIG = {
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
    "sampling": {"batch": 2},
    "optimiser": {"steps": 12, "warmup": 3},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny() -> TrainConfig:
    return TrainConfig.model_validate(CONFIG)


@pytest.fixture(scope="session")
def data_set_folder(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Corners of two real images, for training as for validation, in the layout of an index with splits."""
    folder = tmp_path_factory.mktemp("index") / "nuclei"
    rows = []
    for split in ("train", "val"):
        for part in ("images", "labels"):
            (folder / split / part).mkdir(parents=True)
        for name, modality in NAMES.items():
            for part in ("images", "labels"):
                pixels = imagecodecs.png_decode((data / "nuclei" / part / f"{name}.png").read_bytes())
                corner = imagecodecs.png_encode(pixels[:SIDE, :SIDE])
                (folder / split / part / f"{name}_{split}.png").write_bytes(corner)
            rows.append({"id": f"{name}_{split}", "split": split, "modality": modality})
    with (folder / "index.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "split", "modality"])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.fixture(scope="session")
def data_set(data_set_folder: Path) -> Dataset:
    return open_dataset(data_set_folder)


@pytest.fixture(scope="session")
def fluorescence(data: Path) -> Dataset:
    """The two plain fluorescence images of the test data."""
    whole = open_dataset(data / "nuclei", splits=("train", "val", "test"))
    kept = [
        replace(sample, modality=sample.id)
        for sample in whole.samples
        if sample.id in ("fluo_small", "fluo_large")
    ]
    return replace(whole, samples=tuple(kept))


@pytest.fixture(scope="session")
def spec(tiny: TrainConfig) -> ModelSpec:
    return tiny.model.model_copy(update={"object_diameter": 18.0})


@pytest.fixture
def segmenter(spec: ModelSpec) -> Segmenter:
    """Untrained: for what does not depend on what is found."""
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    return Segmenter(spec, network, device="cpu")
