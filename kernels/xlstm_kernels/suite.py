"""Everything that needs a GPU in one command: tests, memory checker, measurements (`bench --gpu-suite`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ODD_SHAPES = """
import torch
from xlstm_kernels import mlstm
for shape in ((1, 17, 2, 25), (1, 330, 1, 48), (2, 65, 1, 160), (1, 100, 2, 210), (1, 1, 1, 1)):
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = (torch.randn(shape, device="cuda").to(dtype).requires_grad_() for _ in range(3))
        i, f = (torch.randn(shape[:3], device="cuda").requires_grad_() for _ in range(2))
        for reverse in (False, True):
            mlstm(q, k, v, i, f, reverse, backend="triton").float().sum().backward()
torch.cuda.synchronize()
"""


def gpu_suite(target: Path | None) -> int:
    """Run the suite from the root of a checkout and keep a report.

    Returns
    -------
    int
        0 where the tests passed, the checker found nothing and the measurements ran.
    """
    tests = Path("tests/kernels")
    if not tests.is_dir():
        print("the suite runs from the root of a checkout: tests/kernels is missing", file=sys.stderr)
        return 2
    target = target or Path(f"gpu-suite-{time.strftime('%Y%m%d-%H%M%S')}.json")
    python = sys.executable
    with tempfile.TemporaryDirectory() as folder:
        script, figures = Path(folder) / "odd_shapes.py", Path(folder) / "bench.json"
        script.write_text(ODD_SHAPES)
        steps = {
            "tests": [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tests / "test_gpu.py")]
        }
        checker = shutil.which("compute-sanitizer")
        for tool in ("memcheck", "racecheck") if checker else ():
            steps[tool] = [str(checker), "--tool", tool, "--error-exitcode", "1", python, str(script)]
        steps["bench"] = [python, "-m", "xlstm_kernels.bench", "--device", "cuda", "--json", str(figures)]
        report: dict[str, Any] = {name: _step(name, command) for name, command in steps.items()}
        if not checker:
            report["memcheck"] = report["racecheck"] = {"note": "compute-sanitizer is not installed"}
        if figures.exists():
            report["figures"] = json.loads(figures.read_text())
    target.write_text(json.dumps(report, indent=1))
    print(f"report: {target}")
    return int(any(step.get("exit_code", 0) for step in report.values() if isinstance(step, dict)))


def _step(name: str, command: list[str]) -> dict[str, Any]:
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    tail = done.stdout[-8000:]
    print(tail, flush=True)
    seconds = time.perf_counter() - start
    return {"command": " ".join(command), "exit_code": done.returncode, "seconds": seconds, "output": tail}
