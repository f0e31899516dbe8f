"""The CMake files against a stub of Slicer's: everything is packaged, and the package runs on its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import HERE, MODULE, ROOT, WORKER_PYTHON

MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")
NO_COMPILER = [
    f"-DCMAKE_{language}_{what}"
    for language in ("C", "CXX")
    for what in ("COMPILER=/bin/true", "COMPILER_FORCED=1", "COMPILER_ID=GNU")
]

SEGMENT = """
import json, os, sys
import numpy as np
import XLSTMUNetLib
from XLSTMUNetLib.workplace import Kind, Workplace
from xlstm_unet.worker.client import WorkerClient
place = Workplace(Kind.PYTHON, python=sys.argv[1])
with WorkerClient(place.command(""), place.environment({}, dict(os.environ))) as client:
    models = client.start(400)["models"]
    model = models[0]
    shape = (40,) * 2 if model["dimension"] == 2 else (32,) * 3
    image = np.random.default_rng(0).normal(size=shape).astype("f4")
    reply = client.request("segment", {"model": model["name"]}, {"image": image}).result(400)
import xlstm_unet
print(json.dumps({"core": xlstm_unet.__file__, "lib": XLSTMUNetLib.__file__,
    "models": [entry["folder"] for entry in models], "shape": reply.arrays["labels"].shape}))
"""


def cmake() -> str:
    beside = Path(sys.executable).with_name("cmake")
    return str(beside) if beside.exists() else shutil.which("cmake")


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """The files that a package of the extension holds, in a path with spaces and unicode."""
    folder = tmp_path_factory.mktemp("build ü")
    stub = f"-DSlicer_DIR={HERE / 'cmake_stub'}"
    configure = [
        cmake(),
        "-S",
        str(ROOT),
        "-B",
        str(folder / "build"),
        "-G",
        "Unix Makefiles",
        stub,
        *NO_COMPILER,
    ]
    subprocess.run(configure, check=True, capture_output=True)
    install = [cmake(), "--install", str(folder / "build"), "--prefix", str(folder / "package")]
    subprocess.run(install, check=True, capture_output=True)
    return folder / "package" / MODULES


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".mypy_cache" not in path.parts
    }


def test_everything_of_the_module_is_packaged(package):
    present = {name for name in files_of(MODULE) if name != "CMakeLists.txt"}
    packaged = {name for name in files_of(package) if not name.startswith("XLSTMUNetCore/")}
    assert packaged == present


def test_the_core_the_kernels_and_the_models_are_packaged(package):
    core = package / "XLSTMUNetCore"
    assert files_of(core / "xlstm_unet") == files_of(ROOT / "core" / "xlstm_unet")
    assert files_of(core / "xlstm_kernels") == files_of(ROOT / "kernels" / "xlstm_kernels")
    assert any(name.endswith("model.safetensors") for name in files_of(core))


def test_the_package_is_small_enough_for_the_index(package):
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) < 100e6


def test_the_package_runs_with_no_checkout_beside_it(package, tmp_path):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "XLSTM_UNET_HOME")
    }
    environment |= {"PYTHONPATH": str(package), "XLSTM_UNET_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SEGMENT, WORKER_PYTHON]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for path in (found["core"], found["lib"], *found["models"]):
        assert Path(path).is_relative_to(package), path


def test_the_index_entry_is_what_the_index_expects():
    entry = json.loads((ROOT / "slicer_extension" / "XLSTMUNet.json").read_text())
    assert entry["category"] == "Segmentation"
    assert entry["build_dependencies"] == ["PyTorch"]
    assert entry["scm_url"].startswith("https://github.com/")
    assert set(entry) == {
        "$schema",
        "build_dependencies",
        "build_subdirectory",
        "category",
        "scm_revision",
        "scm_url",
        "tier",
    }
