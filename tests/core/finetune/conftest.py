"""A small model with a replay pack, a real image, and corrections of a prediction of it."""

from __future__ import annotations

import os
import shutil
import sys

import numpy as np
import pytest
import torch

from xlstm_unet.images import Image, read_image, read_labels
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.dataset import Sample
from xlstm_unet.learn.replay import make_replay
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.worker.client import WorkerClient
from xlstm_unet.zoo import write_bundle

FIELDS = {
    "name": "tiny",
    "dimension": 2,
    "input_channels": 1,
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
}


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    """A small model of instances."""
    return ModelSpec.model_validate(FIELDS)


@pytest.fixture(scope="session")
def network(spec):
    """Its network, with weights that are the same every time."""
    return build_network(spec, generator=torch.Generator().manual_seed(0)).eval()


@pytest.fixture(scope="session")
def nuclei(data) -> tuple[Image, np.ndarray]:
    """A real gray image with its true labels."""
    image = read_image(data / "nuclei" / "images" / "fluo_small.png")
    array = image.array if "C" not in image.axes else image.array[0]
    truth = np.asarray(read_labels(data / "nuclei" / "labels" / "fluo_small.png"), np.int32)
    return Image(array, "YX", name="fluo_small"), truth


@pytest.fixture(scope="session")
def corrections(nuclei) -> Corrections:
    """Nuclei that a prediction missed, fused, cut short or found where there is nothing."""
    image, truth = nuclei
    prediction = truth.copy()
    numbers = np.unique(truth)[1:]
    prediction[np.isin(truth, numbers[::3])] = 0
    prediction[truth == numbers[1]] = numbers[2]
    prediction[:4, :9][truth[:4, :9] == 0] = truth.max() + 1
    return Corrections(image, prediction, truth)


@pytest.fixture(scope="session")
def pack(spec, nuclei):
    """A replay pack of real patches."""
    image, truth = nuclei
    samples = [Sample(str(n), "train", str(n), "fluo", image, truth) for n in range(2)]
    return make_replay(samples, samples, spec, licence="CC0")


@pytest.fixture(scope="session")
def home(spec, network, pack, tmp_path_factory):
    """A data folder of a user who owns the model."""
    folder = tmp_path_factory.mktemp("home")
    write_bundle(folder / "models" / "tiny", spec, network, card="# tiny\n", licence="CC0", replay=pack)
    return folder


@pytest.fixture
def own_home(home, tmp_path, monkeypatch):
    """A copy of it for one test, in this process too."""
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def worker(own_home):
    """A real worker of that user's."""
    with _worker_of(own_home) as client:
        yield client


@pytest.fixture
def second_worker(own_home):
    """Another one: a second window."""
    with _worker_of(own_home) as client:
        yield client


def _worker_of(home) -> WorkerClient:
    env = {**os.environ, "XLSTM_UNET_HOME": str(home)}
    return WorkerClient([sys.executable, "-P", "-m", "xlstm_unet.worker"], env=env)
