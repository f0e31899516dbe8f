"""The report of a model's robustness."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from xlstm_unet.errors import CancelledError
from xlstm_unet.learn import Dataset, TrainConfig, train
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.changes import CHANGES
from xlstm_unet.study.robustness import measure_robustness


@pytest.fixture(scope="module")
def trained(tiny: TrainConfig, data_set: Dataset, tmp_path_factory: pytest.TempPathFactory):
    """A network that has seen two images: enough to find something."""
    optimiser = tiny.optimiser.model_copy(update={"steps": 80, "learning_rate": 5e-3, "average": 0.8})
    validation = tiny.validation.model_copy(update={"interval": 80})
    config = tiny.model_copy(update={"optimiser": optimiser, "validation": validation})
    result = train(config, data_set, tmp_path_factory.mktemp("run"), device="cpu")
    return result.spec, result.network


def test_report_covers_scale_content_tiles_and_background(
    trained: tuple, data_set: Dataset, fluorescence: Dataset, tmp_path: Path
) -> None:
    whole_large = next(sample for sample in fluorescence.samples if sample.id == "fluo_large")
    image = replace(whole_large.image, array=whole_large.image.array[:100, :300])
    large = replace(
        whole_large, split="val", modality="large", image=image, labels=whole_large.labels[:100, :300]
    )
    small = data_set.split("val")[0]
    dataset = replace(data_set, samples=(large, small, replace(small, id="another")))
    result = measure_robustness(
        *trained, dataset, "val", tmp_path, max_images=1, factors=(0.5, 1.0), device="cpu"
    )
    assert result["images"] == 2
    written = json.loads((tmp_path / "robustness.json").read_text())
    assert [row["factor"] for row in written["scale"]] == [0.5, 1.0]
    whole = result["scale"][1]["estimated"]["f1_50"].mean
    assert whole > 0.2
    assert set(written["scale"][0]["as they are"]["modalities"]) == {"large", "fluorescence"}

    unchanged, *others = result["content"]
    assert unchanged["f1_50"].mean == pytest.approx(whole)
    assert [row["kind"] for row in others] == [change.kind for change in CHANGES]
    for row in others:
        assert row["lost"].mean == pytest.approx(whole - row["f1_50"].mean, abs=1e-9)

    assert result["tiles"]["images"] == 1
    assert 0 < result["tiles"]["worst"] <= 1
    assert result["background"]["made up"]["black"] == 0
    crops = sum(counts["crops"] for counts in result["background"]["real"].values())
    assert 0 <= len(result["background"]["wrong"]) <= crops

    text = (tmp_path / "robustness.md").read_text()
    assert "| 0.5 |" in text
    assert "| black | 0 |" in text
    assert (tmp_path / "robustness.png").read_bytes()[:4] == b"\x89PNG"


def test_cancel_writes_nothing(spec: ModelSpec, data_set: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        measure_robustness(
            spec, build_network(spec), data_set, "val", tmp_path, device="cpu", cancel=lambda: True
        )
    assert not list(tmp_path.iterdir())
