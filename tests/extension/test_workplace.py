"""Where the worker runs: commands and environments, with real processes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import XLSTMUNetLib  # noqa: F401 - makes the core importable
from conftest import WORKER_PYTHON
from XLSTMUNetLib.core import core_folders
from XLSTMUNetLib.workplace import Kind, Workplace

from xlstm_unet.errors import ConfigError
from xlstm_unet.worker.client import WorkerClient
from xlstm_unet.worker.errors import WorkerStartError

BROKEN = {"PYTHONHOME": "/Applications/Slicer.app/lib/Python", "PYTHONPATH": "/Applications/Slicer/modules"}
"""What Slicer's environment does to other interpreters."""


def test_slicers_own_python_keeps_slicers_environment():
    place = Workplace()
    assert place.command("/opt/Slicer/bin/PythonSlicer")[0] == "/opt/Slicer/bin/PythonSlicer"
    environment = place.environment({"PYTHONPATH": "/slicer", "PYTHONHOME": "/home"}, {})
    assert environment["PYTHONHOME"] == "/home"
    assert environment["PYTHONPATH"].split(os.pathsep) == [*map(str, core_folders()), "/slicer"]


def test_another_python_starts_although_slicers_environment_would_break_it(tmp_path):
    place = Workplace(Kind.PYTHON, python=WORKER_PYTHON)
    startup = {"PATH": os.environ["PATH"], "XLSTM_UNET_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    environment = place.environment({**os.environ, **BROKEN}, startup)
    assert "PYTHONHOME" not in environment
    with WorkerClient(place.command(""), environment) as client:
        assert client.start(400)["models"]


def test_a_python_without_the_packages_is_told_in_words(tmp_path):
    place = Workplace(Kind.PYTHON, python=sys.executable)
    environment = place.environment({}, {"PATH": os.environ["PATH"]})
    with WorkerClient(place.command(""), environment) as client, pytest.raises(WorkerStartError) as caught:
        client.start(100)
    assert "No module named" in str(caught.value)


@pytest.mark.slow
def test_a_remote_machine_is_reached_through_ssh(tmp_path):
    """A program called ssh stands in for ssh: it starts the worker here, as ssh does there."""
    ssh = tmp_path / "ssh"
    worker = f"PYTHONPATH={os.pathsep.join(map(str, core_folders()))} {WORKER_PYTHON} -m xlstm_unet.worker"
    banner = 'echo "Welcome to gpu.example" >&2; echo motd'
    ssh.write_text(f'#!/bin/sh\n{banner}\n[ "$4" = anna@gpu ] || exit 255\nexec env {worker}\n')
    ssh.chmod(0o755)
    place = Workplace(Kind.REMOTE, remote="anna@gpu")
    assert place.command("") == ["ssh", "-T", "-o", "BatchMode=yes", "anna@gpu", "xlstm-unet", "worker"]
    startup = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    command = [str(ssh), *place.command("")[1:]]
    with WorkerClient(command, place.environment({}, startup)) as client:
        assert client.start(400)["devices"]


def test_a_whole_remote_command_is_taken_as_it_is():
    place = Workplace(Kind.REMOTE, remote="ssh -p 2222 gpu 'my env/bin/xlstm-unet' worker")
    assert place.command("") == ["ssh", "-p", "2222", "gpu", "my env/bin/xlstm-unet", "worker"]


@pytest.mark.parametrize(
    "place",
    [
        Workplace(Kind.PYTHON, python=""),
        Workplace(Kind.PYTHON, python="/nicht da/python"),
        Workplace(Kind.REMOTE, remote=""),
        Workplace(Kind.REMOTE, remote="-oProxyCommand=evil"),
        Workplace(Kind.REMOTE, remote="'unclosed"),
    ],
)
def test_what_cannot_be_a_workplace_is_refused(place):
    with pytest.raises(ConfigError):
        place.command("")


def test_every_choice_is_described():
    texts = {Workplace(kind, "/usr/bin/python3", "anna@gpu").describe() for kind in Kind}
    assert len(texts) == 3
    assert any("anna@gpu" in text for text in texts)


@pytest.mark.slow
def test_a_path_with_spaces_and_unicode(tmp_path):
    folder = tmp_path / "mein Ordner ü 空"
    folder.mkdir()
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{WORKER_PYTHON}" "$@"\n')
    python.chmod(0o755)
    place = Workplace(Kind.PYTHON, python=str(python))
    startup = {"PATH": os.environ["PATH"], "XLSTM_UNET_HOME": str(folder), "OMP_NUM_THREADS": "1"}
    with WorkerClient(place.command(""), place.environment({}, startup)) as client:
        assert client.start(400)["models"]
    assert Path(place.python).exists()
