"""``finetune``: corrected label files in, a kept version out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xlstm_unet.images import read_labels
from xlstm_unet.learn.corrections_store import CorrectionStore
from xlstm_unet.zoo import read_bundle

Invoke = Callable[..., Any]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folders(tmp_path: Path, data: Path) -> dict[str, Path]:
    """Corner of a real image; its truth as correction; as prediction the truth without two nuclei."""
    paths = {name: tmp_path / name for name in ("images", "corrected", "predicted")}
    for path in paths.values():
        path.mkdir()
    for kind, name in (("images", "images"), ("labels", "corrected")):
        with Image.open(data / "nuclei" / kind / "fluo_small.png") as picture:
            picture.crop((0, 0, 96, 96)).save(paths[name] / "corner.png")
    truth = np.asarray(read_labels(paths["corrected"] / "corner.png"))
    missing = np.unique(truth)[[1, 4]]
    predicted = np.where(np.isin(truth, missing), 0, truth).astype(np.uint16)
    Image.fromarray(predicted).save(paths["predicted"] / "corner_labels.png")
    return paths


def _options(folders: dict[str, Path]) -> list[str]:
    return ["--images", str(folders["images"]), "--corrected", str(folders["corrected"]), "--steps", "2"]


def test_what_differs_from_the_prediction_is_learnt(
    invoke: Invoke, cells: Path, folders: dict[str, Path], home: Path
) -> None:
    options = [*_options(folders), "--predicted", str(folders["predicted"]), "--name", "mine", "--json"]
    done = invoke("finetune", "--model", cells, *options)
    assert done.exit_code == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["model"] == "mine"
    assert fields["number"] == 1
    assert fields["steps"] == 2
    assert fields["counts"]["added"] == fields["counts"]["corrected"] == 2
    assert fields["counts"]["accepted_voxels"] == 0
    assert fields["verdict"] == "too-few"
    tuned, root = read_bundle(home / "models" / "mine"), read_bundle(cells)
    assert any(not np.array_equal(tuned.weights[name], root.weights[name]) for name in root.weights)
    assert len(CorrectionStore(home).entries()) == 1

    # A second image: the version learns from both, and again from the root.
    shutil.copy(folders["images"] / "corner.png", folders["images"] / "other.png")
    with Image.open(folders["images"] / "other.png") as picture:
        picture.rotate(180).save(folders["images"] / "other.png")
    (folders["images"] / "corner.png").unlink()
    for name, ending in (("corrected", ""), ("predicted", "_labels")):
        with Image.open(folders[name] / f"corner{ending}.png") as picture:
            picture.rotate(180).save(folders[name] / f"other{ending}.png")
    options[options.index("--name") : options.index("--name") + 2] = []
    done = invoke("finetune", "--model", "mine", *options)
    assert done.exit_code == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["model"] == "mine"
    assert fields["number"] == 2
    assert fields["counts"]["images"] == 2
    assert fields["counts"]["corrected"] == 4


@pytest.mark.parametrize("ignored", [True, False])
def test_without_a_prediction_all_but_the_ignored_value_is_known(
    invoke: Invoke, cells: Path, folders: dict[str, Path], home: Path, ignored: bool
) -> None:
    options = _options(folders)
    known = 96 * 96
    if ignored:
        path = folders["corrected"] / "corner.png"
        labels = np.asarray(read_labels(path)).astype(np.uint16)
        labels[:, 48:] = 999
        known -= 96 * 48
        Image.fromarray(labels).save(path)
        options += ["--ignore-label", "999"]
    done = invoke("finetune", "--model", cells, *options, "--json")
    assert done.exit_code == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["corrected_voxels"] + counts["accepted_voxels"] == known


def test_nothing_to_learn(invoke: Invoke, cells: Path, folders: dict[str, Path], home: Path) -> None:
    done = invoke("finetune", "--model", cells, *_options(folders), "--predicted", folders["corrected"])
    assert done.exit_code == 1
    assert "Nothing is corrected" in done.stderr
    assert not (home / "models").exists()


def test_labels_of_another_size(invoke: Invoke, cells: Path, folders: dict[str, Path], home: Path) -> None:
    Image.new("L", (50, 50)).save(folders["predicted"] / "corner_labels.png")
    done = invoke("finetune", "--model", cells, *_options(folders), "--predicted", folders["predicted"])
    assert done.exit_code == 1
    assert "50 x 50" in done.stderr
    assert "96 x 96" in done.stderr


def test_budget_and_steps_exclude_each_other(invoke: Invoke, cells: Path, folders: dict[str, Path]) -> None:
    done = invoke("finetune", "--model", cells, *_options(folders), "--budget", "60")
    assert done.exit_code == 2
    assert "--budget or --steps" in done.stderr
