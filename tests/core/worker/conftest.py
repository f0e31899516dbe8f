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
