"""``segment``: results for files and folders, and JSON."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from xlstm_unet.images import read_image

Invoke = Callable[..., Any]


def test_a_process_segments_a_file(run: Any, cells: Path, image: Path, tmp_path: Path) -> None:
    done = run("segment", image, "--model", cells, "--output", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"] == "cells"
    (row,) = report["images"]
    assert row["image"] == str(image)
    labels = tifffile.imread(row["labels"])
    assert Path(row["labels"]) == tmp_path / "out" / "fluo_small_labels.tif"
    assert labels.dtype == np.int32
    assert labels.shape == read_image(image).spatial_shape
    assert row["objects"] == len(np.unique(labels[labels > 0]))
    assert {"seconds", "device", "read_as", "notes", "diameter"} <= row.keys()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fluo_small_labels.tif"]


def test_measurements_and_overlay(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = invoke("segment", image, "--model", cells, "--output", out, "--measure", "--overlay", "--json")
    assert done.exit_code == 0, done.stderr
    (row,) = json.loads(done.stdout)["images"]
    with Path(row["measurements"]).open(newline="") as file:
        rows = list(csv.DictReader(file))
    labels = tifffile.imread(row["labels"])
    assert len(rows) == row["objects"] > 0
    assert sum(int(r["pixels"]) for r in rows) == np.count_nonzero(labels)
    with Image.open(row["overlay"]) as overlay:
        assert overlay.size == labels.shape[::-1]
    assert sorted(p.name for p in out.iterdir()) == [
        "fluo_small_labels.tif",
        "fluo_small_objects.csv",
        "fluo_small_overlay.png",
    ]


def test_a_folder_and_what_failed_in_it(invoke: Invoke, cells: Path, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("fluo_small.png", "hist_pink_he.png"):
        shutil.copy(data / "nuclei" / "images" / name, folder)
    (folder / "broken.png").write_bytes((folder / "fluo_small.png").read_bytes()[:500])
    done = invoke("segment", folder, "--model", cells, "--output", tmp_path / "out", "--json")
    assert done.exit_code == 1
    rows = {Path(row["image"]).name: row for row in json.loads(done.stdout)["images"]}
    assert set(rows) == {"fluo_small.png", "hist_pink_he.png", "broken.png"}
    assert rows["broken.png"]["error"]["code"] == "image"
    assert "broken.png" in done.stderr
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "fluo_small_labels.tif",
        "hist_pink_he_labels.tif",
    ]


def test_results_beside_the_images_are_not_taken_for_images(
    invoke: Invoke, cells: Path, image: Path, tmp_path: Path
) -> None:
    shutil.copy(image, tmp_path)
    for _ in range(2):
        done = invoke("segment", tmp_path, "--model", cells, "--output", tmp_path, "--overlay", "--json")
        assert done.exit_code == 0, done.stderr
        assert len(json.loads(done.stdout)["images"]) == 1


def test_two_images_of_one_stem_are_refused(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "fluo_small.tif", np.zeros((8, 8), np.uint8))
    done = invoke(
        "segment", image, tmp_path / "fluo_small.tif", "--model", cells, "--output", tmp_path / "out"
    )
    assert done.exit_code == 1
    assert "would both write fluo_small_labels" in done.stderr
    assert not (tmp_path / "out").exists()


def test_pixel_size_is_kept(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    source = tmp_path / "scaled.ome.tif"
    pixels = read_image(image).array[:64, :80]
    metadata = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm", "PhysicalSizeY": 0.5}
    tifffile.imwrite(source, pixels, ome=True, metadata=metadata | {"PhysicalSizeYUnit": "µm"})
    done = invoke("segment", source, "--model", cells, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    with tifffile.TiffFile(tmp_path / "scaled_labels.tif") as file:
        assert 'PhysicalSizeX="0.25"' in (file.ome_metadata or "")
        assert 'PhysicalSizeY="0.5"' in (file.ome_metadata or "")


def test_nifti_in_nifti_out(invoke: Invoke, parts: Path, data: Path, tmp_path: Path) -> None:
    source = data / "hippocampus" / "images" / "hippocampus_125.nii.gz"
    done = invoke("segment", source, "--model", parts, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    result, original = nibabel.load(tmp_path / "hippocampus_125_labels.nii.gz"), nibabel.load(source)
    assert result.shape == original.shape
    assert np.allclose(result.affine, original.affine)
    assert set(np.unique(np.asarray(result.dataobj))) <= {0, 1, 2}


def test_axes_say_how_a_stack_is_read(invoke: Invoke, cells: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tifffile.imwrite(
        tmp_path / "a.tif",
        rng.integers(0, 255, (3, 32, 40), np.uint8),
        photometric="minisblack",
        metadata=None,
    )
    shapes = {}
    for axes in ("ZYX", "CYX"):
        done = invoke(
            "segment", tmp_path / "a.tif", "--model", cells, "--output", tmp_path / axes, "--axes", axes
        )
        assert done.exit_code == 0, done.stderr
        shapes[axes] = tifffile.imread(tmp_path / axes / "a_labels.tif").shape
    assert shapes == {"ZYX": (3, 32, 40), "CYX": (32, 40)}


def test_decoding_options_change_the_result(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    def objects(*options: object) -> int:
        done = invoke("segment", image, "--model", cells, "--output", tmp_path, "--json", *options)
        assert done.exit_code == 0, done.stderr
        (row,) = json.loads(done.stdout)["images"]
        return int(row["objects"])

    default = objects()
    assert objects("--min-size", 10_000_000) == 0
    assert objects("--seed-height", 0.9) != default
    assert objects("--threshold", 0.99, "--min-size", 0) != default


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--tile", "64"], 0),
        (["--tile", "64,96"], 0),
        (["--mirror"], 0),
        (["--diameter", "30"], 0),
        (["--device", "cpu"], 0),
        (["--tile", "big"], 2),
        (["--tile", "0"], 2),
        (["--threshold", "2"], 2),
        (["--min-size", "-1"], 2),
        (["--diameter", "-3"], 1),
        (["--device", "tpu"], 1),
        (["--axes", "QX"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_options(
    invoke: Invoke, cells: Path, image: Path, tmp_path: Path, options: list[str], code: int
) -> None:
    done = invoke("segment", image, "--model", cells, "--output", tmp_path / "out", *options)
    assert done.exit_code == code, done.stderr
    assert (tmp_path / "out").exists() == (code == 0)
