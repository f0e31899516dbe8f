"""The targets of a CPU in one command (`bench --cpu-targets`): the cell, the layer, whole networks.

``--rehearse`` runs little of each step: it shows that the command is whole, and measures nothing.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

from xlstm_kernels.suite import MINUTES, machine, run_step

NETWORKS = ("enc-512", "enc-512-none", "small-dense")
"""Cases of ``bench_network.py`` whose training step is timed too."""

VOLUMES = {1: ("dense-3d",), 2: ("dense-3d", "enc-3d", "enc-3d-none")}
"""Cases of which inference alone is timed, by number of threads: they take half a minute a pass with one."""

LAYERS = ("512,32,32", "256,64,64", "128,128,128", "64,128,128", "256,8,16,16", "128,16,32,32")
"""Features and sides of the maps that targets are about."""

SHARE = {1: 0.55, 2: 1.0}
"""By which part of the time the steps have to be done, by number of threads."""


class Target(NamedTuple):
    """A bound that a ratio of `cpu_ratios` should keep."""

    bound: float
    at_least: bool = False


TARGETS = {
    "dense form to ours, forward, 256 tokens": Target(5, at_least=True),
    "dense form to ours, forward, 1024 tokens": Target(18, at_least=True),
    "dense form to ours, forward, 4096 tokens": Target(150, at_least=True),
    "dense form to ours, both, 256 tokens": Target(1.5, at_least=True),
    "dense form to ours, both, 1024 tokens": Target(5, at_least=True),
    "dense form to ours, both, 4096 tokens": Target(70, at_least=True),
    "layer to convolution, 2D, 512 features": Target(2),
    "layer to convolution, 2D, 256 features": Target(2),
    "layer to convolution, 2D, 128 features": Target(4),
    "layer to convolution, 2D, 64 features": Target(10),
    "layer to convolution, 3D, 256 features": Target(1.5),
    "layer to convolution, 3D, 128 features": Target(1.5),
    "enc-512 to the same without ViL, float32": Target(1.15),
    "enc-512 to the same without ViL, bfloat16": Target(1.4),
    "enc-3d to the same without ViL, float32": Target(1.15),
    "enc-3d to the same without ViL, bfloat16": Target(1.4),
}


def cpu_targets(target: Path | None, *, minutes: float = MINUTES, rehearse: bool = False) -> int:
    """Measure what is promised of a CPU, with one thread and with two, and keep a report.

    The cell against the dense form, the layer against a convolution, whole networks with ViL layers against
    without, `dense` ones; seconds and peak memory. Runs from the root of a checkout, on an idle machine.

    Parameters
    ----------
    target
        JSON file to write; the one that is kept in the repository by default.
    minutes
        After so many the step that runs is stopped, and the report keeps what there is.
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
    report: dict[str, Any] = {"rehearsal": rehearse, **machine(None), "threads": {}}
    start, exit_codes = time.monotonic(), []
    with tempfile.TemporaryDirectory() as folder:
        for threads, share in SHARE.items():
            found: dict[str, Any] = {"load": os.getloadavg()[0]} if hasattr(os, "getloadavg") else {}
            for name, command in _steps(Path(folder), threads, rehearse=rehearse).items():
                written = Path(folder) / f"{name}.json"
                written.unlink(missing_ok=True)
                environment = {"OMP_NUM_THREADS": str(threads)}
                step = run_step(name, command, environment, start + 60 * minutes * share)
                exit_codes.append(step["exit_code"])
                found[name] = json.loads(written.read_text()) if written.exists() else step
                found[name]["exit_code"] = step["exit_code"]
                found["ratios"] = cpu_ratios(found)
                report["threads"][str(threads)] = found
                target.write_text(json.dumps(report, indent=1) + "\n")
    for threads, found in report["threads"].items():
        print("\n".join([f"== {threads} thread(s)", *verdicts(found["ratios"]), *_plain_figures(found)]))
    print(f"report: {target}")
    return int(any(exit_codes))


def _steps(figures: Path, threads: int, *, rehearse: bool) -> dict[str, list[str]]:
    """Commands by name; what a step measures lies in ``figures`` under its name."""
    bench = [sys.executable, "-m", "xlstm_kernels.bench", "--device", "cpu", "--json"]
    network = [sys.executable, "tests/benchmarks/bench_network.py", "--precision", *_precisions(), "--json"]
    cells = [*bench, str(figures / "cells.json"), "--shape"]
    layers = [*bench, str(figures / "layers.json"), "--layers"]
    networks, volumes = ([*network, str(figures / f"{name}.json")] for name in ("networks", "volumes"))
    if rehearse:
        return {
            "cells": [*cells, "1,64,2,16", "--seconds", "0.01"],
            "layers": [*layers, "--shape", "16,8,8", "8,4,4,4", "--seconds", "0.01"],
            "networks": [*networks, "--train", "--repeats", "1", "tiny-none", "tiny-dense"],
            "volumes": [*volumes, "--repeats", "1", "tiny-dense"],
        }
    return {
        "cells": [*cells, "1,256,4,64", "1,1024,4,64", "1,4096,4,64"],
        "layers": [*layers, "--shape", *LAYERS],
        "networks": [*networks, "--train", "--repeats", "1", *NETWORKS],
        "volumes": [*volumes, "--repeats", "1", *VOLUMES[threads]],
    }


def _precisions() -> list[str]:
    """Precisions to time networks in: bfloat16 where the processor multiplies it."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    fast = capabilities.get("amx_bf16") or capabilities.get("avx512_bf16")
    return ["float32", "bfloat16"] if fast else ["float32"]


def cpu_ratios(found: dict[str, Any]) -> dict[str, float]:
    """Ratios that the targets are about: the dense form to ours, a layer to a convolution, networks."""
    ratios = {}
    cells: dict[tuple[int, str], dict[str, Any]] = {
        (row["shape"][1], row["name"]): row for row in _rows(found, "cells")
    }
    for (size, name), row in cells.items():
        for label in ("forward", "both"):
            if name == "dense" and f"{label}_ms" in row:
                own = cells[size, "ours"][f"{label}_ms"]
                ratios[f"dense form to ours, {label}, {size} tokens"] = row[f"{label}_ms"] / own
    for row in _rows(found, "layers"):
        name = f"layer to convolution, {len(row['sides'])}D, {row['features']} features"
        ratios[name] = row["layer_ms"] / row["conv_ms"]
        ratios[f"{name}, with backward"] = row["layer_both_ms"] / row["conv_both_ms"]
    networks = {
        (row["case"], row["precision"]): row for row in (*_rows(found, "networks"), *_rows(found, "volumes"))
    }
    for (case, precision), row in networks.items():
        if (bare := networks.get((f"{case}-none", precision))) is not None:
            clock = "cpu_s" if row["threads"] == 1 else "min_s"
            for key, suffix in ((clock, ""), (f"train_{clock}", ", training step")):
                if key in row and key in bare:
                    ratios[f"{case} to the same without ViL, {precision}{suffix}"] = row[key] / bare[key]
    return {name: round(ratio, 3) for name, ratio in ratios.items()}


def verdicts(ratios: dict[str, float]) -> list[str]:
    """One line a ratio: its target, if there is one, and whether it is met."""
    lines = []
    for name, ratio in ratios.items():
        verdict = "no target"
        if (target := TARGETS.get(name)) is not None:
            met = ratio >= target.bound if target.at_least else ratio <= target.bound
            bound = f"{'at least' if target.at_least else 'at most'} {target.bound:g}"
            verdict = f"{bound}: {'met' if met else 'MISSED'}"
        lines.append(f"{name:64} {ratio:8.2f}  {verdict}")
    return lines


def _plain_figures(found: dict[str, Any]) -> list[str]:
    """One line a network: seconds of inference and of a training step, peak memory of inference."""
    lines = []
    for row in (*_rows(found, "networks"), *_rows(found, "volumes")):
        clock = "cpu_s" if row["threads"] == 1 else "min_s"
        step = f", training step {row[f'train_{clock}']:.2f} s" if f"train_{clock}" in row else ""
        name = f"{row['case']}, {row['precision']}"
        lines.append(f"{name:64} {row[clock]:8.2f} s, peak {row['peak_mb'] / 1024:.2f} GiB{step}")
    return lines


def _rows(found: dict[str, Any], step: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = found.get(step, {}).get("rows", [])
    return rows
