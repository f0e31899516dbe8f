"""All that needs a GPU in one command: tests, memory checker and measurements (`bench --gpu-suite`).

``--rehearse`` runs the same steps on a CPU, little of each and in Triton's interpreter: it shows that the
command is whole, and measures nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from xlstm_kernels.backend import ENVIRONMENT
from xlstm_kernels.bench import processor

ODD_SHAPES = """
import sys, torch
from xlstm_kernels import mlstm, triton_launch, vil_layer
from xlstm_kernels.bench import random_layer
device, few = sys.argv[1], sys.argv[1] == "cpu"
shapes = ((1, 17, 2, 25), (1, 330, 1, 48), (2, 65, 1, 160), (1, 100, 2, 210), (1, 1, 1, 1))
dtypes = (torch.float32,) if few else (torch.float32, torch.bfloat16, torch.float16)
for dtype in dtypes:
    for shape in shapes[:1] if few else shapes:
        q, k, v = (torch.randn(shape, device=device).to(dtype).requires_grad_() for _ in range(3))
        i, f = (torch.randn(shape[:3], device=device).requires_grad_() for _ in range(2))
        for reverse, form in ((False, True), (True, True), (False, False), (True, False)):
            triton_launch.quadratic = lambda *_, form=form: form
            mlstm(q, k, v, i, f, reverse, backend="triton").float().sum().backward()
    for size, width in ((19, 10),) if few else ((19, 10), (333, 50), (100, 128), (1, 25)):
        x = torch.randn(2, size, width, device=device).to(dtype).requires_grad_()
        vil_layer(x, random_layer(width, torch.device(device)), backend="triton").float().sum().backward()
if not few:
    torch.cuda.synchronize()
"""

PACKAGES = ("torch", "triton", "mlstm_kernels", "xlstm-unet")
OUTPUT = 8000
"""Characters of a step's output that are kept."""

MINUTES = 120.0
"""Time for a whole run by default."""

LATE = 124
"""Exit code of a step that was stopped because the time was up."""


def gpu_suite(target: Path | None, *, minutes: float = MINUTES, rehearse: bool = False) -> int:
    """Run the suite from the root of a checkout and keep a report.

    Parameters
    ----------
    target
        JSON file to write; named after the time by default.
    minutes
        After so many the step that runs is stopped, and the report says so.
    rehearse
        Run the steps on a CPU.

    Returns
    -------
    int
        0 where the tests passed, the checker found nothing and the measurements ran; 1 where not, 2 where the
        suite cannot run here.
    """
    tests = Path("tests/kernels")
    if not tests.is_dir():
        print("the suite runs from the root of a checkout: tests/kernels is missing", file=sys.stderr)
        return 2
    if not rehearse and not torch.cuda.is_available():
        print("there is no GPU here; --rehearse runs the steps on a CPU", file=sys.stderr)
        return 2
    target = target or Path(f"gpu-suite-{time.strftime('%Y%m%d-%H%M%S')}.json")
    deadline = time.monotonic() + 60 * minutes
    report: dict[str, Any] = {
        "rehearsal": rehearse,
        **machine(None if rehearse else torch.cuda.get_device_name()),
        "steps": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder)
        for name, command in _steps(tests, figures, rehearse=rehearse).items():
            # What is measured runs on the kernels that `auto` leaves alone until this suite has passed.
            environment = {} if name == "tests" else {ENVIRONMENT: "triton"}
            if rehearse and name != "tests":
                environment |= {"TRITON_INTERPRET": "1"}
            report["steps"][name] = run_step(name, command, environment, deadline)
            written = figures / f"{name}.json"
            if written.exists():
                report["steps"][name]["figures"] = json.loads(written.read_text())
            target.write_text(json.dumps(report, indent=1))
    if not shutil.which("compute-sanitizer"):
        report["memory_checker"] = "compute-sanitizer is not installed: memory was not checked"
        target.write_text(json.dumps(report, indent=1))
    failed = [name for name, step in report["steps"].items() if step["exit_code"]]
    print(f"report: {target}; {'failed: ' + ', '.join(failed) if failed else 'every step passed'}")
    return int(bool(failed))


def _steps(tests: Path, figures: Path, *, rehearse: bool) -> dict[str, list[str]]:
    """Commands by name; what a step measures lies in ``figures`` under its name."""
    python, device = sys.executable, "cpu" if rehearse else "cuda"
    script = figures / "odd_shapes.py"
    script.write_text(ODD_SHAPES)
    bench = [python, "-m", "xlstm_kernels.bench", "--device", device]
    networks = [python, str(tests.parent / "benchmarks" / "bench_network.py"), "--device", device, "--train"]
    pytest = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    steps = {"tests": [*pytest, str(tests / "test_gpu.py")]}
    checker = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck") if checker and not rehearse else ():
        steps[tool] = [str(checker), "--tool", tool, "--error-exitcode", "1", python, str(script), device]
    if rehearse:
        steps["odd_shapes"] = [python, str(script), device]
    few = ["--seconds", "0.01", "--dtype", "float32", "--shape"] if rehearse else []
    steps["cells"] = [*bench, "--json", str(figures / "cells.json"), *few, *(["1,64,2,16"] if few else [])]
    steps["layers"] = [*bench, "--layers", "--json", str(figures / "layers.json"), *few]
    steps["layers"] += ["16,8,8"] if few else []
    steps["networks"] = [*networks, "--json", str(figures / "networks.json")]
    steps["networks"] += ["tiny-none", "tiny-dense", "--repeats", "1"] if rehearse else []
    return steps


def machine(gpu: str | None) -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {
        "machine": gpu or processor(),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "packages": found,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(["python -m xlstm_kernels.bench", *sys.argv[1:]]),
    }


def run_step(name: str, command: list[str], environment: dict[str, str], deadline: float) -> dict[str, Any]:
    """Run a command and return its exit code, its time and the end of what it printed.

    Parameters
    ----------
    environment
        Variables besides those of this process.
    deadline
        Time of `time.monotonic` at which the command and all that it started are stopped: exit code `LATE`.
    """
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.monotonic()
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=max(0.0, deadline - start))
            code = process.returncode
        except subprocess.TimeoutExpired:
            _kill(process)
            output, code = f"{process.communicate()[0]}\nstopped: the time is up\n", LATE
        except BaseException:
            _kill(process)
            raise
    tail = output[-OUTPUT:]
    print(tail, flush=True)
    seconds = time.monotonic() - start
    return {"command": " ".join(command), "exit_code": code, "seconds": seconds, "output": tail}


def _kill(process: subprocess.Popen[str]) -> None:
    """End a process and, where there are process groups, all that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
