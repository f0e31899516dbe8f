"""Ctrl-C and a polite kill on a real process: it ends soon, and leaves nothing half written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into the process through /proc")

ENDS_WITHIN_SECONDS = 6.0
"""Generous: a second on a machine that is not busy (see the benchmarks)."""


@pytest.fixture
def large_image(tmp_path: Path) -> Path:
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, np.random.default_rng(0).integers(0, 255, (3000, 3000), np.uint8))
    return path


@pytest.fixture
def start(cells: Path, large_image: Path, tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "xlstm_unet.cli", "segment", large_image, "--model", cells]
        command += ["--output", tmp_path / "out", "--overlay", "--measure", "--diameter", "12"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    return begin


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the process did not get so far"
        time.sleep(0.02)


def has_mapped(process: subprocess.Popen[str], library: str) -> bool:
    return library in Path(f"/proc/{process.pid}/maps").read_text()


@pytest.mark.parametrize(
    ("library", "seconds"),
    [("_json", 0.0), ("libtorch_cpu", 0.0), ("_flapack", 0.0), ("_flapack", 2.0)],
    ids=["starting", "importing torch", "reading", "segmenting"],
)
def test_interrupted(
    start: Callable[[], subprocess.Popen[str]], tmp_path: Path, library: str, seconds: float
) -> None:
    process = start()
    wait_until(lambda: has_mapped(process, library))
    time.sleep(seconds)
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert time.monotonic() - begin < ENDS_WITHIN_SECONDS
    assert process.returncode == 130, errors
    assert "Cancelled." in errors
    assert "Traceback" not in errors
    assert output == ""
    assert not (tmp_path / "out").exists()


def test_terminated(start: Callable[[], subprocess.Popen[str]], tmp_path: Path) -> None:
    process = start()
    wait_until(lambda: has_mapped(process, "libtorch_cpu"))
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert not (tmp_path / "out").exists()
