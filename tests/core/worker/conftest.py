"""Real worker processes for the tests."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from xlstm_unet.worker.client import WorkerClient

PRACTICE = Path(__file__).with_name("practice_worker.py")


def _wait_until(condition, timeout: float = 10.0) -> float:
    """Wait for a condition and return the seconds it took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < timeout, "waited in vain"
        time.sleep(0.005)
    return time.monotonic() - start


def _is_running(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def wait_until():
    return _wait_until


@pytest.fixture
def is_running():
    return _is_running


@pytest.fixture
def practice_command() -> list[str]:
    """Command of the practice worker."""
    return [sys.executable, str(PRACTICE)]


@pytest.fixture
def client(practice_command):
    """A client of a practice worker of its own."""
    with WorkerClient(practice_command) as client:
        yield client


@pytest.fixture
def make_client():
    """Make clients that are closed at the end of the test."""
    clients = []

    def make(command, **environment):
        clients.append(WorkerClient(command, {**os.environ, **environment}))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def _tiny_spec(name: str = "tiny"):
    from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

    return ModelSpec(
        name=name,
        description="An untrained network.",
        dimension=2,
        input_channels=3,
        accepts_gray=True,
        task="instances",
        labels=(Label(value=1, name="nucleus"),),
        network=NetworkSpec(
            variant="dense",
            direction="paired",
            features=(4, 8),
            kernels=((3, 3), (3, 3)),
            strides=((1, 1), (2, 2)),
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        ),
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(64, 64),
        object_diameter=10.0,
    )


@pytest.fixture(scope="session")
def write_model():
    """Write an untrained model below a home folder: ``write_model(home, name, seed)``."""
    import torch

    from xlstm_unet.nets import build_network
    from xlstm_unet.zoo import write_bundle

    def write(home: Path, name: str = "tiny", seed: int = 0) -> Path:
        spec = _tiny_spec(name)
        network = build_network(spec, generator=torch.Generator().manual_seed(seed)).eval()
        return write_bundle(home / "models" / name, spec, network, card="# A card", licence="CC0 1.0\n")

    return write


@pytest.fixture(scope="session")
def home(tmp_path_factory, write_model) -> Path:
    """A home folder with a model, a damaged one, and spaces and unicode in its path."""
    home = tmp_path_factory.mktemp("home") / "Mein Ordner, ü und 空白"
    write_model(home)
    (home / "models" / "damaged").mkdir()
    (home / "models" / "damaged" / "model.json").write_text("{")
    return home


@pytest.fixture(scope="session")
def real(home):
    """A client of a real worker that all tests share."""
    with WorkerClient(env={**os.environ, "XLSTM_UNET_HOME": str(home), "OMP_NUM_THREADS": "1"}) as client:
        yield client
