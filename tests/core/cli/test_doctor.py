"""``doctor``: sound or broken, and what was found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]


@pytest.fixture
def embedded(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Embedded models: only the untrained one."""
    folder = tmp_path / "embedded"
    shutil.copytree(cells, folder / "cells")
    monkeypatch.setattr("xlstm_unet.zoo.store._EMBEDDED", folder)
    return folder


def test_a_process_reports_as_json(run: Any) -> None:
    done = run("doctor", "--json")
    report = json.loads(done.stdout)
    checks = {check["name"]: check for check in report["checks"]}
    assert {"program", "packages", "memory", "CPU", "GPU", "kernels", "models", "self-test"} <= checks.keys()
    assert report["ok"] == all(check["ok"] for check in report["checks"])
    assert done.returncode == (0 if report["ok"] else 1)
    assert checks["kernels"]["ok"]
    assert "torch 2" in checks["packages"]["found"]


def test_an_untrained_model_fails_the_self_test(invoke: Invoke, embedded: Path) -> None:
    done = invoke("doctor")
    assert done.exit_code == 1
    assert "BROKEN" in done.stdout
    assert "cells on cpu" in done.stdout


def test_a_damaged_embedded_model_is_broken(invoke: Invoke, embedded: Path) -> None:
    (embedded / "cells" / "model.json").write_text("{}")
    done = invoke("doctor", "--json")
    assert done.exit_code == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert not checks["models"]["ok"]
    assert "format_version" in checks["models"]["found"]


def test_a_device_that_is_not_there(invoke: Invoke, embedded: Path) -> None:
    done = invoke("doctor", "--device", "tpu", "--json")
    assert done.exit_code == 1
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert "tpu" in checks["self-test"]["found"]
