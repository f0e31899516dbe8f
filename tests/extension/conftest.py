"""A real scene, real MRI and a real worker process for the tests of the Slicer extension."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MODULE = ROOT / "slicer_extension" / "XLSTMUNet"
HIPPOCAMPUS = ROOT / "tests" / "data" / "hippocampus"
WORKER_PYTHON = os.environ.get("XLSTM_UNET_WORKER_PYTHON", str(ROOT / ".venv" / "bin" / "python"))

sys.path[:0] = [str(MODULE), str(HERE)]


@pytest.fixture(scope="session")
def wired():
    """The one scene of this process, with its logics."""
    from slicer_scene import make_scene

    return make_scene()


@pytest.fixture
def scene(wired, capfd):
    """An empty scene; an error that Slicer prints fails the test."""
    wired.scene.Clear(0)
    yield wired.scene
    printed = "\n".join(capfd.readouterr())
    wired.scene.Clear(0)
    errors = [line for line in printed.splitlines() if "ERR|" in line]
    assert not errors, "\n".join(errors)


@pytest.fixture
def mri_file() -> Path:
    """A T1-weighted crop around a hippocampus, never trained on."""
    return next((HIPPOCAMPUS / "images").glob("*.nii.gz"))


@pytest.fixture
def load_volume(wired):
    """Read a volume with Slicer's own reader: ``load_volume(file, name)``."""

    def load(file, name="MRI"):
        node = wired.volumes.AddArchetypeVolume(str(file), name, 0)
        assert node is not None, file
        return node

    return load


@pytest.fixture
def mri(scene, mri_file, load_volume):
    """The same as a node of the scene."""
    return load_volume(mri_file)


@pytest.fixture
def truth(scene, mri_file, load_volume):
    """Its manual labels as an array K, J, I: 1 anterior, 2 posterior."""
    import numpy as np
    import slicer.util

    node = load_volume(HIPPOCAMPUS / "labels" / mri_file.name, "truth")
    labels = np.array(slicer.util.arrayFromVolume(node), np.int32)
    scene.RemoveNode(node)
    return labels


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    """A home folder of the worker's with an untrained 3D model; spaces and unicode in its path."""
    folder = tmp_path_factory.mktemp("home") / "Mein Ordner, ü und 空白"
    command = [WORKER_PYTHON, str(HERE / "write_model.py"), str(folder / "models" / "untrained")]
    subprocess.run(command, check=True, env=worker_environment())
    return folder


def worker_environment(**more: str) -> dict[str, str]:
    """Return the environment of a worker that runs from the checkout."""
    path = os.pathsep.join((str(ROOT / "core"), str(ROOT / "kernels")))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture
def make_client(home):
    """Make clients of real workers; they are closed at the end of the test."""
    import XLSTMUNetLib  # noqa: F401 - makes the core importable

    from xlstm_unet.worker.client import WorkerClient

    clients = []

    def make(command=None, **environment):
        command = command or [WORKER_PYTHON, "-P", "-m", "xlstm_unet.worker"]
        clients.append(WorkerClient(command, worker_environment(XLSTM_UNET_HOME=str(home), **environment)))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture(scope="session")
def shared_client(home):
    """A client of one real worker for all tests that do not harm it."""
    import XLSTMUNetLib  # noqa: F401 - makes the core importable

    from xlstm_unet.worker.client import WorkerClient

    environment = worker_environment(XLSTM_UNET_HOME=str(home))
    with WorkerClient([WORKER_PYTHON, "-P", "-m", "xlstm_unet.worker"], environment) as client:
        yield client


@pytest.fixture
def wait_for():
    """Drain a `Background` until a condition holds: ``wait_for(background, condition)``."""

    def wait(background, condition, timeout=400.0):
        until = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < until, "waited in vain"
            background.drain()
            time.sleep(0.005)

    return wait
