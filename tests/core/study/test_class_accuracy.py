"""Accuracy of models of classes, on a real volume with the embedded model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xlstm_unet.errors import DatasetError, ModelError
from xlstm_unet.images import read_image, read_labels
from xlstm_unet.learn import Dataset, Sample
from xlstm_unet.study.class_accuracy import mean_mask, measure_classes
from xlstm_unet.zoo import load


@pytest.fixture(scope="module")
def volume(data: Path) -> Sample:
    folder = data / "hippocampus"
    image = read_image(folder / "images" / "hippocampus_125.nii.gz")
    labels = read_labels(folder / "labels" / "hippocampus_125.nii.gz")
    return Sample("hippocampus_125", "test", "63", "", image, labels)


def test_the_embedded_model_beats_the_mean_mask(volume: Sample, tmp_path: Path) -> None:
    # The training mask is this volume's own, shifted: better than any mean mask of strangers.
    other = replace(volume, split="train", labels=np.roll(volume.labels, 4, axis=1))
    result = measure_classes(load("hippocampus-mri", "cpu"), Dataset("h", (volume, other)), "test", tmp_path)
    for part in result["labels"].values():
        assert part["dice"].mean > 0.8
        assert part["gain"].mean > 0
        assert part["hd95_mm"].mean < 4
    written = json.loads((tmp_path / "accuracy.json").read_text())
    assert [image["id"] for image in written["images"]] == ["hippocampus_125"]
    text = (tmp_path / "accuracy.md").read_text()
    assert "| hippocampus_125 |" in text
    assert "| anterior hippocampus |" in text
    assert (tmp_path / "pictures" / "h.png").stat().st_size > 1000
    with pytest.raises(DatasetError, match="split 'val'"):
        measure_classes(load("hippocampus-mri", "cpu"), Dataset("h", (volume, other)), "val", tmp_path)


def test_both_sides_are_found_alike(volume: Sample) -> None:
    segmenter = load("hippocampus-mri", "cpu")
    mirrored = replace(volume.image, array=volume.image.array[..., ::-1], affine=None)
    found = segmenter(replace(volume.image, affine=None)).labels, segmenter(mirrored).labels[..., ::-1]
    same = [
        2 * np.count_nonzero((found[0] == k) & (found[1] == k)) / sum(np.count_nonzero(f == k) for f in found)
        for k in (1, 2)
    ]
    assert min(same) > 0.85


def test_the_mean_mask_is_centred_and_by_majority(volume: Sample) -> None:
    small = replace(volume, labels=np.ones((2, 2, 2), np.int32))
    empty = replace(volume, labels=np.zeros((4, 4, 4), np.int32))
    mask = mean_mask([small, small, empty], (4, 4, 4))
    assert mask.sum() == 8
    assert mask[1:3, 1:3, 1:3].all()
    assert not mean_mask([small, empty, empty], (4, 4, 4)).any()
    np.testing.assert_array_equal(mean_mask([small], (1, 2, 3)), [[[1, 1, 0], [1, 1, 0]]])


def test_models_of_instances_are_refused(volume: Sample, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a model of classes"):
        measure_classes(load("nuclei", "cpu"), Dataset("h", (volume,)), "test", tmp_path)
