"""Whole runs in one command: what needs a GPU (`bench --gpu-suite`), the targets of a CPU (`--cpu-targets`).

``--rehearse`` runs the same steps on a CPU, little of each and the GPU's kernels in Triton's interpreter: it
shows that the command is whole, and measures nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
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

NETWORKS = ("enc-512", "enc-512-none", "enc-3d", "enc-3d-none", "small-dense", "dense-3d")
"""Cases of ``bench_network.py`` that the targets of a CPU are about."""

PACKAGES = ("torch", "triton", "mlstm_kernels", "xlstm-unet")
OUTPUT = 8000
"""Characters of a step's output that are kept."""


def gpu_suite(target: Path | None, *, rehearse: bool = False) -> int:
    """Run the suite from the root of a checkout and keep a report.

    Parameters
    ----------
    target
        JSON file to write; named after the time by default.
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
    report: dict[str, Any] = {
        "rehearsal": rehearse,
        **_machine(None if rehearse else torch.cuda.get_device_name()),
        "steps": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder)
        for name, command in _steps(tests, figures, rehearse=rehearse).items():
            # What is measured runs on the kernels that `auto` leaves alone until this suite has passed.
            environment = {} if name == "tests" else {ENVIRONMENT: "triton"}
            if rehearse and name != "tests":
                environment |= {"TRITON_INTERPRET": "1"}
            report["steps"][name] = _step(name, command, environment)
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


def cpu_targets(target: Path | None, *, rehearse: bool = False) -> int:
    """Measure what `docs/kernels.md` promises of a CPU, with one thread and with two, and keep a report.

    The cell against the dense form, the layer against a convolution, whole networks with ViL layers against
    without, `dense` ones; seconds and peak memory. Runs from the root of a checkout, on an idle machine.

    Parameters
    ----------
    target
        JSON file to write; the one that is kept in the repository by default.
    rehearse
        Run little of each step; nothing is measured, and ``target`` has to be given.

    Returns
    -------
    int
        0 where every step ran, 1 where not, 2 where the measurements cannot run here.
    """
    if not Path("tests/benchmarks").is_dir() or (rehearse and target is None):
        print("run from the root of a checkout; a rehearsal needs --json", file=sys.stderr)
        return 2
    target = target or Path("tests/benchmarks/results/cpu_targets.json")
    report: dict[str, Any] = {"rehearsal": rehearse, **_machine(None), "threads": {}}
    exit_codes = []
    with tempfile.TemporaryDirectory() as folder:
        for threads in (1, 2):
            found: dict[str, Any] = {"load": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
            for name, command in _cpu_steps(Path(folder), rehearse=rehearse).items():
                step = _step(name, command, {"OMP_NUM_THREADS": str(threads)})
                exit_codes.append(step["exit_code"])
                written = Path(folder) / f"{name}.json"
                found[name] = json.loads(written.read_text()) if written.exists() else step
            report["threads"][str(threads)] = found | {"ratios": cpu_ratios(found)}
            target.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({n: found["ratios"] for n, found in report["threads"].items()}, indent=1))
    return int(any(exit_codes))


def _cpu_steps(figures: Path, *, rehearse: bool) -> dict[str, list[str]]:
    bench = [sys.executable, "-m", "xlstm_kernels.bench", "--device", "cpu", "--json"]
    network = [sys.executable, "tests/benchmarks/bench_network.py", "--json", str(figures / "networks.json")]
    cells = [*bench, str(figures / "cells.json"), "--shape"]
    layers = [*bench, str(figures / "layers.json"), "--layers"]
    if rehearse:
        return {
            "cells": [*cells, "1,64,2,16", "--seconds", "0.01"],
            "layers": [*layers, "--shape", "16,8,8", "8,4,4,4", "--seconds", "0.01"],
            "networks": [*network, "tiny-none", "tiny-dense", "--repeats", "1"],
        }
    return {
        "cells": [*cells, "1,256,4,64", "1,1024,4,64", "1,4096,4,64"],
        "layers": layers,
        "networks": [*network, *NETWORKS, "--repeats", "2"],
    }


def cpu_ratios(found: dict[str, Any]) -> dict[str, float]:
    """Ratios that the targets are about: the dense form to ours, a layer to a convolution, networks."""
    ratios = {}
    cells: dict[tuple[int, str], dict[str, Any]] = {
        (row["shape"][1], row["name"]): row for row in found["cells"].get("rows", [])
    }
    for (size, name), row in cells.items():
        for label in ("forward", "both"):
            if name == "dense" and f"{label}_ms" in row:
                own = cells[size, "ours"][f"{label}_ms"]
                ratios[f"dense form to ours, {label}, {size} tokens"] = row[f"{label}_ms"] / own
    for row in found["layers"].get("rows", []):
        name = f"layer to convolution, {len(row['sides'])}D, {row['features']} features"
        ratios[name] = row["layer_ms"] / row["conv_ms"]
    networks = {(row["case"], row["precision"]): row for row in found["networks"].get("rows", [])}
    for (case, precision), row in networks.items():
        if (bare := networks.get((f"{case}-none", precision))) is not None:
            clock = "cpu_s" if row["threads"] == 1 else "min_s"
            ratios[f"{case} to the same without ViL, {precision}"] = row[clock] / bare[clock]
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


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


def _machine(gpu: str | None) -> dict[str, Any]:
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


def _step(name: str, command: list[str], environment: dict[str, str]) -> dict[str, Any]:
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    tail = done.stdout[-OUTPUT:]
    print(tail, flush=True)
    seconds = time.perf_counter() - start
    return {"command": " ".join(command), "exit_code": done.returncode, "seconds": seconds, "output": tail}
