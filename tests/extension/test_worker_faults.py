"""The worker and its front die at bad moments; the extension's own client is at the other end."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import HERE, ROOT, WORKER_PYTHON, worker_environment
from test_controller import Front
from test_mrml import add_volume
from XLSTMUNetLib.segmenting import Request
from XLSTMUNetLib.state import Phase

from xlstm_unet.errors import ImageError
from xlstm_unet.worker.errors import MemoryShortageError, WorkerCrashedError

PRACTICE = ROOT / "tests" / "core" / "worker" / "practice_worker.py"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_front_after(seconds: float, home: Path, model: str = "untrained") -> float:
    """Start a front with a working worker, kill the front, and return how long the worker lived on."""
    command = [sys.executable, str(HERE / "parent.py"), WORKER_PYTHON, model]
    environment = worker_environment(XLSTM_UNET_HOME=str(home))
    parent = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    worker = int(parent.stdout.readline())
    time.sleep(seconds)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    killed = time.monotonic()
    while is_running(worker):
        assert time.monotonic() < killed + 30, "the worker lives on"
        time.sleep(0.005)
    parent.stdout.close()
    return time.monotonic() - killed


def test_the_worker_ends_with_its_front(home):
    assert kill_front_after(1.0, home) < 10


@pytest.mark.slow
def test_the_worker_ends_with_its_front_at_twenty_random_moments(home):
    moments = random.Random(0)
    assert max(kill_front_after(moments.uniform(0, 12), home) for _ in range(20)) < 10


@pytest.fixture
def practice(scene, make_client, wait_for):
    """The controller's backend over a worker that misbehaves on request."""
    front = Front(make_client([WORKER_PYTHON, str(PRACTICE)]), wait_for)
    front.told.clear()
    return front


def ask(front, method, **params):
    """Ask for something; return what came."""
    came = []
    front.controller.backend.call(method, params, done=came.append, failed=came.append)
    front.wait(lambda: bool(came))
    return came[0]


def test_death_in_the_middle_is_told_and_the_next_request_works(practice):
    error = ask(practice, "die")
    assert isinstance(error, WorkerCrashedError)
    assert "SIGKILL" in str(error)
    assert ask(practice, "echo_text", text="ü 空").values["text"] == "ü 空"


def test_errors_keep_their_kind_and_words(practice):
    error = ask(practice, "fail", text="image")
    assert isinstance(error, ImageError)
    assert "NaN at (3, 4)" in str(error)


def test_no_memory_for_the_work(practice):
    error = ask(practice, "fill_memory", megabytes=2**23)
    assert isinstance(error, MemoryShortageError)
    assert ask(practice, "echo_text", text="on").values["text"] == "on"


def test_printing_does_not_disturb(practice):
    assert ask(practice, "chatter").values == {"stdin": ""}


def test_work_that_does_not_listen_is_cancelled_all_the_same(practice):
    ended = []
    job = practice.controller.backend.call(
        "stubborn", {"seconds": 60.0}, done=ended.append, failed=ended.append
    )
    practice.wait(lambda: job.progress is not None)
    before = time.monotonic()
    job.cancel()
    practice.wait(lambda: bool(ended))
    assert time.monotonic() - before < 20
    assert ask(practice, "echo_text", text="again").values["text"] == "again"


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["starting", "sending", "working"])
def test_the_worker_may_be_killed_at_every_stage(scene, make_client, wait_for, stage):
    client = make_client()
    front = Front(client, wait_for)
    if stage == "starting":
        os.killpg(client.pid, signal.SIGKILL)
    size = (96, 200, 200) if stage == "sending" else (64, 128, 128)
    volume = add_volume(np.random.default_rng(0).normal(size=size).astype(np.float32))
    before = scene.GetNumberOfNodes()
    results = []
    front.controller.segment(Request(volume, front.model()), results.append)
    if stage == "working":
        front.wait(lambda: front.state.progress > 0)
    if stage != "starting":
        os.killpg(client.pid, signal.SIGKILL)
    front.wait()
    assert front.state.phase is Phase.READY
    if stage != "starting":
        assert isinstance(front.told[0], WorkerCrashedError)
        assert scene.GetNumberOfNodes() == before
    small = add_volume(np.random.default_rng(0).normal(size=(24, 24, 24)).astype(np.float32), name="small")
    assert front.segment(small) is not None
