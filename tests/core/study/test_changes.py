"""Changed images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xlstm_unet.images import Image
from xlstm_unet.learn import Dataset, Sample
from xlstm_unet.study.changes import CHANGES, Change, changed, empty_crops, made_up_backgrounds, rescaled


@pytest.fixture(params=["fluo_small_val", "hist_purple_on_white_val"])
def sample(request: pytest.FixtureRequest, data_set: Dataset) -> Sample:
    return next(sample for sample in data_set.samples if sample.id == request.param)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.kind} {change.strength}"[:30])
def test_changes_keep_the_grid_and_dtype(sample: Sample, change: Change) -> None:
    image = changed(sample, change).image
    assert image.array.dtype == sample.image.array.dtype
    assert image.array.shape == sample.image.array.shape
    assert not np.array_equal(image.array, sample.image.array)
    np.testing.assert_array_equal(changed(sample, change).image.array, image.array)


def test_inverting_twice_gives_the_image(sample: Sample) -> None:
    inverted = next(change for change in CHANGES if change.kind == "inverted")
    twice = changed(changed(sample, inverted), inverted)
    np.testing.assert_array_equal(twice.image.array, sample.image.array)


def test_noise_has_the_stated_strength(sample: Sample) -> None:
    change = next(change for change in CHANGES if "10 %" in change.strength)
    values = replace(sample, image=replace(sample.image, array=sample.image.array.astype(np.float32)))
    noise = changed(values, change).image.array - values.image.array
    low, high = np.percentile(values.image.array, (1, 99.8))
    assert noise.std() == pytest.approx(0.1 * (high - low), rel=0.02)


def test_blur_mixes_no_channels() -> None:
    array = np.zeros((3, 30, 30), np.uint8)
    array[1, 15, 15] = 255
    sample = Sample("a", "test", "", "", Image(array, "CYX"), np.zeros((30, 30), np.int32))
    blur = next(change for change in CHANGES if change.kind == "blurred")
    blurred = changed(sample, blur).image.array
    assert blurred[1].max() > 10
    assert blurred[0].max() == blurred[2].max() == 0


@pytest.mark.parametrize("factor", [0.25, 0.5, 1.0, 2.0])
def test_truth_is_rescaled_with_its_image(sample: Sample, factor: float) -> None:
    scaled = rescaled(sample, factor)
    assert scaled.labels.shape == scaled.image.spatial_shape
    assert scaled.labels.shape == tuple(round(n * factor) for n in sample.labels.shape)
    assert scaled.image.array.dtype == sample.image.array.dtype
    share = np.mean(sample.labels > 0)
    assert np.mean(scaled.labels > 0) == pytest.approx(share, rel=0.1)


def test_large_images_are_cut_to_the_middle() -> None:
    labels = np.zeros((100, 800), np.int32)
    labels[40:60, 390:410] = 1
    sample = Sample("a", "test", "", "", Image(labels.astype(np.uint8) * 200, "YX"), labels)
    scaled = rescaled(sample, 4.0)
    assert scaled.labels.shape == (400, 2048)
    assert scaled.labels[200, 1024] == 1
    assert np.count_nonzero(scaled.labels) == 16 * 400


def test_empty_crops_hold_no_object(data_set: Dataset) -> None:
    labels = np.zeros((300, 300), np.int32)
    labels[:20] = 1
    labels[150, 250] = 2
    array = np.arange(90_000, dtype=np.float32).reshape(300, 300)
    crops = dict(empty_crops([Sample("a", "test", "", "made", Image(array, "YX"), labels)]))
    crop = crops["made"].array
    assert min(crop.shape) > 200
    top, left = divmod(int(crop[0, 0]), 300)
    window = labels[top : top + crop.shape[0], left : left + crop.shape[1]]
    assert window.shape == crop.shape
    assert not window.any()
    crowded = np.ones((300, 300), np.int32)
    assert not list(empty_crops([Sample("b", "test", "", "", Image(array, "YX"), crowded)]))


def test_image_without_objects_is_its_own_crop() -> None:
    array = np.zeros((90, 130), np.uint8)
    crops = list(empty_crops([Sample("a", "test", "", "", Image(array, "YX"), array.astype(np.int32))]))
    assert [image.spatial_shape for _, image in crops] == [(88, 88)]


def test_made_up_backgrounds_are_8_bit() -> None:
    images = list(made_up_backgrounds(32))
    assert len({image.name for image in images}) == len(images) == 8
    assert all(image.array.dtype == np.uint8 and image.array.shape == (32, 32) for image in images)
