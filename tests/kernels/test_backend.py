"""The choice of backend: one place, with a reason."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xlstm_kernels import backend


def test_a_cpu_takes_the_torch_form_and_says_why() -> None:
    choice = backend.select("auto", torch.zeros(1, 4, 2, 8))
    assert choice.name == "torch"
    assert "cpu" in choice.reason
    assert backend.describe("cpu").startswith("torch on cpu")


def test_a_gpu_takes_triton_only_when_asked() -> None:
    gpu_tokens = torch.zeros(1, 4, 2, 8, device="meta")
    assert backend.select("auto", gpu_tokens).name == "torch"
    assert "XLSTM_KERNELS_BACKEND=triton" in backend.describe("cuda")


def test_the_environment_takes_the_place_of_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.ENVIRONMENT, "dense")
    assert backend.select("auto", torch.zeros(1, 4, 2, 8)).name == "dense"
    assert backend.select("torch", torch.zeros(1, 4, 2, 8)).name == "torch"


def test_triton_on_a_cpu_is_refused() -> None:
    with pytest.raises(RuntimeError, match="'triton' cannot run: the tokens are on cpu"):
        backend.select("triton", torch.zeros(1, 4, 2, 8))


def test_a_broken_triton_is_reported(tmp_path: Path) -> None:
    (tmp_path / "triton.py").write_text("raise OSError('libtriton is broken')\n")
    code = "import sys; from xlstm_kernels import backend; sys.path.insert(0, sys.argv[1]);"
    code += "print(backend.triton_problem())"
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "OSError: libtriton is broken" in done.stdout


def test_the_compiler_is_not_imported() -> None:
    """It costs every process a second, and brings a second LLVM into one that shows a GL window."""
    script = (
        "import sys, torch; from xlstm_kernels import mlstm; q = torch.ones(1, 3, 1, 2, requires_grad=True);"
        "i = torch.ones(1, 3, 1); mlstm(q, q, q, i, i).sum().backward();"
        "print([name for name in ('torch._dynamo', 'triton') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
