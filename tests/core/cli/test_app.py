"""The application as a whole: help, version, usage."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import xlstm_unet

Invoke = Callable[..., Any]
COMMANDS = [
    "segment",
    "evaluate",
    "train",
    "models",
    "models list",
    "models import",
    "demo",
    "doctor",
    "worker",
]
HEAVY = ("torch", "scipy", "skimage", "numpy", "tifffile", "nibabel")


@pytest.mark.parametrize("command", ["", *COMMANDS, "worker"])
def test_help(invoke: Invoke, command: str) -> None:
    done = invoke(*command.split(), "--help")
    assert done.exit_code == 0
    assert "Usage: xlstm-unet" in done.stdout.replace("root", "xlstm-unet")


@pytest.mark.parametrize("command", ["segment", "evaluate", "train", "models list", "demo", "doctor"])
def test_every_command_offers_json(invoke: Invoke, command: str) -> None:
    assert "--json" in invoke(*command.split(), "--help").stdout


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['xlstm-unet', 'segment', '--help']\n"
        "from xlstm_unet.cli import main\n"
        "try:\n    main()\n"
        f"finally:\n    print('HEAVY', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "--output" in done.stdout
    assert done.stdout.rstrip().endswith("HEAVY []")


def test_version(run: Any) -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"xlstm-unet {xlstm_unet.__version__}\n")


@pytest.mark.parametrize(
    "arguments", [["dance"], ["segment"], ["segment", "a.png", "--model", "m"], ["segment", "-z"]]
)
def test_wrong_usage(run: Any, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage" in done.stderr
