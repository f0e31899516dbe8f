"""``models``: listing and importing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Invoke = Callable[..., Any]


def test_a_process_lists_models_as_json(run: Any) -> None:
    done = run("models", "list", "--json")
    assert done.returncode == 0, done.stderr
    models = json.loads(done.stdout)["models"]
    assert all({"name", "origin", "folder", "size_bytes"} <= model.keys() for model in models)


def test_own_and_damaged_models(
    invoke: Invoke, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home" / "models"
    shutil.copytree(cells, home / "cells")
    (home / "broken").mkdir()
    listed = invoke("models", "list", "--json")
    assert listed.exit_code == 0, listed.stderr
    models = {model["name"]: model for model in json.loads(listed.stdout)["models"]}
    assert models["cells"]["labels"] == ["cell"]
    assert "has no model.json" in models["broken"]["problem"]
    table = invoke("models", "list")
    assert "cells" in table.stdout
    assert "broken is damaged" in table.stderr


@pytest.mark.parametrize("name", ["../escape", "a/b", ".hidden"])
def test_import_refuses_names_that_are_paths(invoke: Invoke, tmp_path: Path, name: str) -> None:
    done = invoke("models", "import", tmp_path, "--name", name)
    assert done.exit_code == 1
    assert "cannot be a model's name" in done.stderr


def test_import_of_a_folder_that_holds_nothing(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("models", "import", tmp_path, "--name", "x", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["message"]
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("case", ["bot_2d", "enc_3d"])
def test_import_of_a_released_checkpoint(invoke: Invoke, shared: Path, case: str) -> None:
    (plans,) = (shared / "golden" / case).rglob("plans.json")
    done = invoke("models", "import", plans.parent, "--name", "mine", "--json")
    assert done.exit_code == 0, done.stderr
    listed = json.loads(invoke("models", "list", "--json").stdout)["models"]
    assert "mine" in {model["name"] for model in listed}
