"""``evaluate``: pairs, scores, JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from xlstm_unet.images import read_labels
from xlstm_unet.measure import score_instances

Invoke = Callable[..., Any]
SCORES = {"f1_50", "f1_75", "f1_90", "ap_50", "ap_50_95", "pq"}


@pytest.fixture
def truth(data: Path) -> Path:
    return data / "nuclei" / "labels"


@pytest.fixture
def predictions(truth: Path, tmp_path: Path) -> Path:
    """The truth, but for every second object of one image and its name."""
    folder = tmp_path / "predictions"
    shutil.copytree(truth, folder)
    labels = read_labels(folder / "fluo_small.png")
    (folder / "fluo_small.png").unlink()
    tifffile.imwrite(folder / "fluo_small_labels.tif", np.where(labels % 2, labels, 0).astype(np.int32))
    return folder


def test_a_process_scores_predictions(run: Any, predictions: Path, truth: Path) -> None:
    done = run("evaluate", "--predictions", predictions, "--labels", truth, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() == {"mean", "images"}
    assert report["mean"].keys() == SCORES
    rows = {row["image"]: row for row in report["images"]}
    assert rows.keys() == {path.stem for path in truth.iterdir()}
    expected = score_instances(
        read_labels(predictions / "fluo_small_labels.tif"), read_labels(truth / "fluo_small.png")
    )
    assert rows["fluo_small"]["f1_50"] == pytest.approx(expected.f1_50)
    assert 0.5 < expected.f1_50 < 0.8
    assert rows["fluo_large"]["ap_50_95"] == 1
    assert report["mean"]["pq"] == pytest.approx(np.mean([row["pq"] for row in rows.values()]))


def test_no_object_in_both_scores_one(invoke: Invoke, tmp_path: Path) -> None:
    for folder in ("truth", "predictions"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / folder / "empty.png")
    done = invoke(
        "evaluate", "--predictions", tmp_path / "predictions", "--labels", tmp_path / "truth", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["mean"] == dict.fromkeys(SCORES, 1)


def test_a_model_is_scored_like_its_own_label_files(
    invoke: Invoke, cells: Path, image: Path, truth: Path, tmp_path: Path
) -> None:
    images, labels = tmp_path / "images", tmp_path / "labels"
    for folder, source in ((images, image), (labels, truth / image.name)):
        folder.mkdir()
        shutil.copy(source, folder)
    assert invoke("segment", images, "--model", cells, "--output", tmp_path / "out").exit_code == 0
    by_files = invoke("evaluate", "--predictions", tmp_path / "out", "--labels", labels, "--json")
    by_model = invoke("evaluate", "--model", cells, "--images", images, "--labels", labels, "--json")
    assert by_model.exit_code == 0, by_model.stderr
    assert json.loads(by_model.stdout) == json.loads(by_files.stdout)


def test_images_and_labels_in_one_folder(
    invoke: Invoke, cells: Path, image: Path, truth: Path, tmp_path: Path
) -> None:
    shutil.copy(image, tmp_path / "a.png")
    shutil.copy(truth / image.name, tmp_path / "a_labels.png")
    done = invoke("evaluate", "--model", cells, "--images", tmp_path, "--labels", tmp_path, "--json")
    assert done.exit_code == 0, done.stderr
    assert [row["image"] for row in json.loads(done.stdout)["images"]] == ["a"]


def test_classes_per_label(invoke: Invoke, parts: Path, data: Path) -> None:
    folder = data / "hippocampus"
    done = invoke(
        "evaluate", "--model", parts, "--images", folder / "images", "--labels", folder / "labels", "--json"
    )
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["mean"].keys() == {"anterior", "posterior"}
    assert report["mean"]["anterior"].keys() == {"dice", "nsd_1mm", "hd95_mm"}
    assert report["images"][0]["posterior"]["dice"] == report["mean"]["posterior"]["dice"]


def test_classes_of_label_files(invoke: Invoke, data: Path) -> None:
    labels = data / "hippocampus" / "labels"
    done = invoke("evaluate", "--predictions", labels, "--labels", labels, "--task", "classes", "--json")
    assert done.exit_code == 0, done.stderr
    perfect = {"dice": 1.0, "nsd_1mm": 1.0, "hd95_mm": 0.0}
    assert json.loads(done.stdout)["mean"] == {"1": perfect, "2": perfect}


def test_a_data_set_is_scored_by_group(
    invoke: Invoke, cells: Path, image: Path, truth: Path, tmp_path: Path
) -> None:
    rows = ["a,test,bright", "b,test,dark", "c,train,dark", "d,val,dark"]
    (tmp_path / "index.csv").write_text("\n".join(["id,split,modality", *rows]))
    for name, split, _ in (row.split(",") for row in rows):
        for kind, source in (("images", image), ("labels", truth / image.name)):
            (tmp_path / split / kind).mkdir(parents=True, exist_ok=True)
            shutil.copy(source, tmp_path / split / kind / f"{name}.png")
    done = invoke("evaluate", "--model", cells, "--dataset", tmp_path, "--split", "test", "--json")
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["groups"].keys() == {"bright", "dark"}
    assert report["groups"]["dark"] == report["mean"]


def test_the_table_names_the_mean(invoke: Invoke, predictions: Path, truth: Path) -> None:
    done = invoke("evaluate", "--predictions", predictions, "--labels", truth)
    assert done.exit_code == 0, done.stderr
    assert f"mean of {len(list(truth.iterdir()))}" in done.stdout


def test_a_missing_prediction_is_an_error(invoke: Invoke, predictions: Path, truth: Path) -> None:
    (predictions / "fluo_large.png").unlink()
    done = invoke("evaluate", "--predictions", predictions, "--labels", truth, "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["error"]["code"] == "dataset"
    assert "fluo_large.png" in done.stderr


def test_sizes_that_differ_name_the_image(invoke: Invoke, predictions: Path, truth: Path) -> None:
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(predictions / "fluo_large.png")
    done = invoke("evaluate", "--predictions", predictions, "--labels", truth)
    assert done.exit_code == 1
    assert "fluo_large: " in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--labels", "x"],
        ["--model", "m", "--labels", "x"],
        ["--predictions", "p"],
        ["--model", "m", "--predictions", "p", "--labels", "x"],
        ["--model", "m", "--dataset", "d", "--labels", "x"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_fit_together(invoke: Invoke, options: list[str]) -> None:
    done = invoke("evaluate", *options)
    assert done.exit_code == 2
    assert "--predictions with --labels" in done.stderr


def test_folders_that_are_missing(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("evaluate", "--predictions", tmp_path / "no", "--labels", tmp_path)
    assert done.exit_code == 1
    assert "is not a folder" in done.stderr
