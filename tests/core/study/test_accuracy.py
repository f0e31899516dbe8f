"""The report of a model's accuracy."""

from __future__ import annotations

import json
from pathlib import Path

import imagecodecs
import pytest

from xlstm_unet.errors import CancelledError
from xlstm_unet.learn import Dataset
from xlstm_unet.segment import Segmenter
from xlstm_unet.study.accuracy import measure_accuracy


def test_report_holds_scores_baseline_and_pictures(
    segmenter: Segmenter, data_set: Dataset, tmp_path: Path
) -> None:
    result = measure_accuracy(segmenter, data_set, "val", tmp_path, diameter="none")
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert written["overall"]["images"] == 2
    assert set(written["modalities"]) == {"fluorescence", "histology"}
    assert written["baseline"]["modalities"]["fluorescence"]["f1_50"][0] > 0.75
    images = {image["id"]: image for image in written["images"]}
    assert images["fluo_small_val"]["seconds"] > 0
    gain = result["gain"]["overall"]["f1_50"].mean
    assert gain == pytest.approx(
        result["overall"]["f1_50"].mean - result["baseline"]["overall"]["f1_50"].mean, abs=1e-12
    )
    text = (tmp_path / "accuracy.md").read_text()
    assert "| fluorescence | 1 |" in text
    assert "| overall | 2 |" in text
    for modality in ("fluorescence", "histology"):
        sheet = imagecodecs.png_decode((tmp_path / "pictures" / f"{modality}.png").read_bytes())
        assert sheet.shape[1] > sheet.shape[0] / 2


def test_cancel_writes_nothing(segmenter: Segmenter, data_set: Dataset, tmp_path: Path) -> None:
    with pytest.raises(CancelledError):
        measure_accuracy(segmenter, data_set, "val", tmp_path, cancel=lambda: True)
    assert not list(tmp_path.iterdir())
