"""Measurements of objects against scikit-image, with units, channels and time, and their table."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from skimage.measure import regionprops

from xlstm_unet.errors import ImageError, OutputError
from xlstm_unet.images import Image, as_image, read_image, read_labels
from xlstm_unet.measure import measure_objects, write_measurements


@pytest.mark.parametrize(
    "path",
    ["nuclei/{}/fluo_small.png", "nuclei/{}/hist_pink_he.png", "hippocampus/{}/hippocampus_125.nii.gz"],
)
def test_real_objects_agree_with_scikit_image(data, path):
    image = read_image(data / path.format("images"))
    labels = read_labels(data / path.format("labels"))
    intensity = np.moveaxis(image.array, 0, -1) if "C" in image.axes else image.array[..., np.newaxis]
    expected = regionprops(labels, intensity)
    measured = measure_objects(labels, image)
    assert len(measured) == len(expected) > 1
    for ours, theirs in zip(measured, expected, strict=True):
        assert ours.label == theirs.label
        assert ours.pixels == theirs.area == ours.area
        assert ours.centroid == pytest.approx(theirs.centroid)
        assert ours.equivalent_diameter == pytest.approx(theirs.equivalent_diameter_area)
        assert ours.mean_intensity == pytest.approx(theirs.intensity_mean)
        assert ours.min_intensity == pytest.approx(theirs.intensity_min)
        assert ours.max_intensity == pytest.approx(theirs.intensity_max)


def test_physical_units():
    labels = np.zeros((4, 10, 10), int)
    labels[1:3, 2:6, 4:8] = 7
    image = Image(np.full(labels.shape, 9, np.uint16), "ZYX", spacing=(2.0, 0.5, 0.25), unit="µm")
    [found] = measure_objects(labels, image)
    assert (found.label, found.pixels, found.unit) == (7, 32, "µm")
    assert found.area == pytest.approx(32 * 0.25)
    assert found.centroid == pytest.approx((1.5 * 2, 3.5 * 0.5, 5.5 * 0.25))
    assert found.equivalent_diameter == pytest.approx((6 * 8 / math.pi) ** (1 / 3))


def test_a_label_counts_once_in_each_frame():
    labels = np.zeros((2, 5, 5), int)
    labels[0, :2, :2] = 3
    labels[1, :3, :3] = 3
    labels[1, 4, 4] = 1
    image = Image(np.arange(2 * 2 * 25.0).reshape(2, 2, 5, 5), "TCYX")
    found = measure_objects(labels, image)
    assert [(m.frame, m.label, m.pixels) for m in found] == [(0, 3, 4), (1, 1, 1), (1, 3, 9)]
    assert found[1].mean_intensity == (74.0, 99.0)


def test_large_label_numbers_cost_nothing():
    labels = np.zeros((5, 5), np.int32)
    labels[2, 2] = 2**31 - 1
    [found] = measure_objects(labels, as_image(np.ones((5, 5))))
    assert found.label == 2**31 - 1
    assert found.centroid == (2.0, 2.0)


def test_no_objects_and_wrong_shapes(tmp_path):
    image = as_image(np.ones((5, 6)))
    assert measure_objects(np.zeros((5, 6), int), image) == []
    write_measurements(tmp_path / "m.csv", [], image)
    assert (tmp_path / "m.csv").read_text().startswith("label,frame,pixels,area,centroid_y,centroid_x")
    with pytest.raises(ImageError, match=r"shape \(6, 5\)"):
        measure_objects(np.zeros((6, 5), int), image)


def test_the_table_holds_every_number(tmp_path):
    labels = np.zeros((2, 4, 4), int)
    labels[:, 1:3, 1:3] = 5
    array = np.stack([np.full(labels.shape, 1.5), np.arange(32.0).reshape(labels.shape)])
    image = Image(array, "CZYX", spacing=(3.0, 0.5, 0.5), unit="µm")
    write_measurements(tmp_path / "m.csv", measure_objects(labels, image), image)
    with (tmp_path / "m.csv").open(encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    assert row["label"] == "5"
    assert float(row["volume"]) == pytest.approx(8 * 0.75)
    assert (float(row["centroid_z"]), float(row["centroid_y"])) == pytest.approx((1.5, 0.75))
    assert row["unit"] == "um"
    assert (float(row["mean_1"]), float(row["min_2"]), float(row["max_2"])) == (1.5, 5.0, 26.0)


def test_a_table_that_cannot_be_written_says_where(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file"):
        write_measurements(tmp_path / "file" / "m.csv", [], as_image(np.ones((5, 6))))
