"""Files of a study: JSON with every number, Markdown with the tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xlstm_unet.files import atomic_path
from xlstm_unet.measure import Interval


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a result as JSON; floats are rounded to 5 digits.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(jsonable(value), indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )


def write_text(path: Path, *blocks: str) -> None:
    """Write blocks of Markdown with an empty line between them.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text("\n\n".join(block for block in blocks if block) + "\n", encoding="utf-8")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a Markdown table; floats with three digits, intervals as ``mean (low to high)``."""
    lines = [columns, ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(value: object) -> str:
    """Return a value as a cell of a table."""
    if isinstance(value, Interval):
        return f"{value.mean:.3f} ({value.low:.3f} to {value.high:.3f})"
    if isinstance(value, float):
        return f"{value:.3f}" if np.isfinite(value) else "-"
    return "" if value is None else str(value)


def machine(device: torch.device) -> dict[str, Any]:
    """Describe where something was measured."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": str(device),
        "name": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def jsonable(value: Any) -> Any:
    """Return a result as JSON holds it: intervals as [mean, low, high], floats with 5 digits."""
    if isinstance(value, Interval):
        return [jsonable(part) for part in (value.mean, value.low, value.high)]
    if isinstance(value, float):
        return round(value, 5) if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: jsonable(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    return value
