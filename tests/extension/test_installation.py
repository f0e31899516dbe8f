"""What Set-up installs: with real pip, in an environment of its own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import XLSTMUNetLib  # noqa: F401 - makes the core importable
from packaging.requirements import Requirement
from XLSTMUNetLib.installation import (
    HELD,
    carry_out,
    constraint_lines,
    held_versions,
    make_plan,
    recorded,
    requirements,
    undo,
)

from xlstm_unet.errors import ConfigError, OutputError


class HerePip:
    """`slicer.packaging` in this environment: it checks, and writes down what it is asked to do."""

    def __init__(self):
        self.asked = []

    def check(self, requirement):
        wanted = Requirement(requirement)
        try:
            return importlib.metadata.version(wanted.name) in wanted.specifier
        except importlib.metadata.PackageNotFoundError:
            return False

    def install(self, requirements, constraints):
        self.asked.append(("install", requirements, Path(constraints).read_text()))

    def uninstall(self, packages):
        self.asked.append(("uninstall", packages))


class Torch:
    """The PyTorch extension."""

    def __init__(self, installed=False, agrees=True):
        self.installed, self.agrees, self.asked = installed, agrees, []

    def torchInstalled(self):
        return self.installed

    def installTorch(self, askConfirmation, torchVersionRequirement):
        self.asked.append((askConfirmation, torchVersionRequirement))
        return object() if self.agrees else None


def test_the_requirements_are_those_of_the_package():
    names = set(requirements())
    assert {"numpy", "torch", "pydantic", "safetensors", "nibabel"} <= names


def test_a_plan_names_what_is_missing_and_what_stays():
    plan = make_plan(HerePip(), Torch(), held_versions({"vtk": "9.6.0"}))
    text = plan.describe()
    assert plan.torch.startswith("torch")
    assert any(line.startswith("pydantic") for line in plan.packages)
    assert not any(line.startswith(("numpy", "torch")) for line in plan.packages)
    assert "PyTorch extension" in text
    assert f"numpy {importlib.metadata.version('numpy')}" in text
    assert "vtk" in text
    assert "Undo" in text


def test_the_constraints_hold_what_slicer_brings(tmp_path):
    held = held_versions({"vtk": "9.6.0", "SimpleITK": "2.5.0"})
    assert set(held) == set(HELD)
    pip, torch = HerePip(), Torch()
    carry_out(make_plan(pip, torch, held), pip, torch, tmp_path / "record.json")
    assert torch.asked == [(True, requirements()["torch"].removeprefix("torch"))]
    _, asked, constraints = pip.asked[0]
    assert constraints == constraint_lines(held)
    assert f"numpy=={importlib.metadata.version('numpy')}\n" in constraints
    assert asked


def test_nothing_is_done_where_nothing_is_missing(tmp_path):
    class All(HerePip):
        def check(self, requirement):
            return True

    plan = make_plan(All(), Torch(installed=True), {})
    assert plan.empty
    assert "nothing is downloaded" in plan.describe()


@pytest.mark.parametrize(
    ("torch", "text"), [(None, "extension that installs it"), (Torch(agrees=False), "not installed")]
)
def test_without_torch_nothing_else_is_installed(torch, text, tmp_path):
    pip = HerePip()
    with pytest.raises(ConfigError, match=text) as caught:
        carry_out(make_plan(pip, torch, {}), pip, torch, tmp_path / "record.json")
    assert caught.value.hint
    assert not pip.asked
    assert not (tmp_path / "record.json").exists()


def test_a_damaged_record_is_told(tmp_path):
    record = tmp_path / "record.json"
    record.write_text("{")
    with pytest.raises(OutputError, match="cannot be read"):
        recorded(record)


def test_only_what_was_installed_here_is_removed(tmp_path):
    record = tmp_path / "record.json"
    record.write_text(json.dumps(["pytest", "was-never-there"]))
    pip = HerePip()
    assert undo(pip, record) == ["pytest"]
    assert pip.asked == [("uninstall", ["pytest"])]
    assert not record.exists()


DRIVER = """
import json, subprocess, sys
from pathlib import Path
import XLSTMUNetLib
from XLSTMUNetLib.installation import Plan, carry_out, undo, held_versions
import importlib, importlib.metadata

class Pip:
    def run(self, *words):
        subprocess.run([sys.executable, "-m", "pip", "-q", *words], check=True)
        importlib.invalidate_caches()
    def install(self, requirements, constraints):
        self.run("install", *requirements, "-c", constraints)
    def uninstall(self, packages):
        self.run("uninstall", "-y", *packages)

record = Path(sys.argv[1])
before = held_versions({})
carry_out(Plan("", ("tifffile>=2024.2.12",), before), Pip(), None, record)
after = held_versions({})
installed = json.loads(record.read_text())
removed = undo(Pip(), record)
print(json.dumps({"before": before, "after": after, "installed": installed, "removed": removed,
    "tifffile": any(d.metadata["Name"] == "tifffile" for d in importlib.metadata.distributions())}))
"""


@pytest.mark.slow
def test_real_pip_leaves_numpy_alone_and_can_be_undone(tmp_path):
    """An older numpy, as Slicer may have it, stays although a package would take a newer one."""
    from conftest import MODULE

    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy==2.3.5"], check=True)
    environment = {**os.environ, "PYTHONPATH": str(MODULE)}
    done = subprocess.run(
        [python, "-c", DRIVER, str(tmp_path / "record.json")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["before"]["numpy"] == found["after"]["numpy"] == "2.3.5"
    assert found["installed"] == found["removed"] == ["tifffile"]
    assert not found["tifffile"]
    assert sys.version_info >= (3, 11)
