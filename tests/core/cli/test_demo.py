"""``demo`` and the sample images it segments."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tifffile

from xlstm_unet.images import read_image, read_labels
from xlstm_unet.samples import SAMPLES, Sample

Invoke = Callable[..., Any]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.name)
def test_samples_are_images_with_truth(sample: Sample) -> None:
    image, labels = read_image(sample.image), read_labels(sample.labels)
    assert labels.shape == image.spatial_shape
    assert labels.max() >= (10 if sample.dimension == 2 else 2)
    assert (sample.image.parents[1] / "LICENSE.md").read_text().count(sample.name) == 1


def test_samples_are_small() -> None:
    assert sum(path.stat().st_size for sample in SAMPLES for path in (sample.image, sample.labels)) < 500_000


def test_a_process_writes_labels_and_overlays(run: Any, cells: Path, tmp_path: Path) -> None:
    done = run("demo", "--model", cells, "--output", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["images"]
    planes = [sample for sample in SAMPLES if sample.dimension == 2]
    assert [row["image"] for row in rows] == [sample.name for sample in planes]
    for row, sample in zip(rows, planes, strict=True):
        assert tifffile.imread(row["labels"]).shape == read_labels(sample.labels).shape
        assert Path(row["overlay"]).stat().st_size > 1000
        assert 0 <= row["score"] <= 1


def test_the_table(invoke: Invoke, cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xlstm_unet.samples.SAMPLES", SAMPLES[:1])
    done = invoke("demo", "--model", cells, "--output", tmp_path)
    assert done.exit_code == 0, done.stderr
    assert SAMPLES[0].name in done.stdout
    assert str(tmp_path) in done.stdout.replace("\n", "")


@pytest.mark.slow
def test_every_sample_by_its_own_embedded_model(run: Any, tmp_path: Path) -> None:
    done = run("demo", "--output", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["image"]: row for row in json.loads(done.stdout)["images"]}
    assert list(rows) == [sample.name for sample in SAMPLES]
    volume = rows["hippocampus_mri"]
    assert (volume["model"], volume["found"], volume["true"]) == ("hippocampus-mri", 2, 2)
    assert volume["score"] > 0.85
    assert read_labels(volume["labels"]).shape == read_labels(SAMPLES[-1].labels).shape


def test_without_the_model(invoke: Invoke, tmp_path: Path) -> None:
    done = invoke("demo", "--model", "no-such-model", "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert not (tmp_path / "out").exists()
