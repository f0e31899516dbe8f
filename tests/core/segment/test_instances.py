"""Decoding maps into objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from xlstm_unet.errors import CancelledError
from xlstm_unet.images import read_labels
from xlstm_unet.learn.targets import instance_targets
from xlstm_unet.measure import score_instances
from xlstm_unet.segment import decode_instances
from xlstm_unet.segment.instances import SMOOTHING, smoothing_for

Maps = tuple[np.ndarray, np.ndarray]


def perfect_maps(labels: np.ndarray) -> Maps:
    classes, distance = instance_targets(labels)
    return (classes > 0).astype(np.float32), distance


def noisy_maps(labels: np.ndarray, noise: float = 0.12, seed: int = 0) -> Maps:
    """Maps such as a network gives: blurred, with ripples."""
    rng = np.random.default_rng(seed)
    foreground, distance = perfect_maps(labels)
    ripples = ndimage.gaussian_filter(rng.normal(0, 1, (2, *labels.shape)), (0, *[1.5] * labels.ndim))
    ripples *= noise / ripples.std()
    foreground = np.clip(ndimage.gaussian_filter(foreground, 0.7) + ripples[0], 0, 1)
    return foreground.astype(np.float32), np.clip(distance + ripples[1], 0, 1).astype(np.float32)


def h_maxima_watershed(foreground: np.ndarray, distance: np.ndarray, seed_height: float) -> np.ndarray:
    """The definition, by the library: seeds are h-maxima, grown inside the foreground."""
    height = np.where(foreground > 0.5, ndimage.gaussian_filter(distance, SMOOTHING), 0).astype(np.float64)
    seeds, _ = ndimage.label(h_maxima(height, seed_height), np.ones((3,) * distance.ndim))
    return watershed(-height, seeds, mask=foreground > 0.5, connectivity=distance.ndim)


@pytest.fixture(scope="module")
def nuclei(data: Path) -> dict[str, np.ndarray]:
    return {path.stem: read_labels(path) for path in sorted((data / "nuclei" / "labels").glob("*.png"))}


def test_perfect_maps_of_real_nuclei(nuclei: dict[str, np.ndarray]) -> None:
    scores = [score_instances(decode_instances(*perfect_maps(labels)), labels) for labels in nuclei.values()]
    assert len(scores) >= 5
    assert np.mean([s.f1_50 for s in scores]) >= 0.98
    assert np.mean([s.f1_75 for s in scores]) >= 0.97
    assert np.mean([s.f1_90 for s in scores]) >= 0.94


@pytest.mark.slow
def test_perfect_maps_of_all_fluorescence_nuclei(shared: Path) -> None:
    from xlstm_unet.learn import open_dataset

    samples = [s for s in open_dataset(shared / "data" / "nuclei").samples if s.split == "val"]
    scores = []
    for sample in samples:
        if sample.modality.startswith("fluo"):
            labels = np.asarray(sample.labels, np.int32)
            scores.append(score_instances(decode_instances(*perfect_maps(labels)), labels))
    assert len(scores) > 40
    assert np.mean([s.f1_50 for s in scores]) >= 0.99
    assert np.mean([s.f1_75 for s in scores]) >= 0.98
    assert np.mean([s.f1_90 for s in scores]) >= 0.97


@pytest.mark.parametrize("seed_height", [0.08, 0.15, 0.3])
def test_agrees_with_h_maxima_and_watershed(nuclei: dict[str, np.ndarray], seed_height: float) -> None:
    for name in ("fluo_small", "hist_purple_on_white"):
        foreground, distance = noisy_maps(nuclei[name])
        expected = h_maxima_watershed(foreground, distance, seed_height)
        found = decode_instances(foreground, distance, seed_height=seed_height)
        scores = score_instances(found, expected)
        assert scores.f1_50 >= 0.98, name
        assert scores.f1_90 >= 0.9, name


@pytest.mark.parametrize("smoothing", [SMOOTHING, 2.5])
@pytest.mark.parametrize("block", [7, 50, 64, 111])
def test_blocks_change_nothing(nuclei: dict[str, np.ndarray], block: int, smoothing: float) -> None:
    foreground, distance = noisy_maps(nuclei["hist_purple_on_purple"])
    whole, parts = (
        decode_instances(foreground, distance, min_size=10, smoothing=smoothing, block=size)
        for size in (10_000, block)
    )
    assert whole.max() > 5
    np.testing.assert_array_equal(parts, whole)


def test_blocks_change_nothing_in_3d() -> None:
    labels = _balls()
    foreground, distance = noisy_maps(labels)
    whole = decode_instances(foreground, distance, min_size=5, block=1000)
    np.testing.assert_array_equal(decode_instances(foreground, distance, min_size=5, block=13), whole)


def _balls() -> np.ndarray:
    labels = np.zeros((40, 50, 60), np.int32)
    grid = np.indices(labels.shape)
    centres = [(12, 14, 14), (12, 14, 27), (25, 30, 40), (30, 12, 45), (28, 40, 12)]
    for number, centre in enumerate(centres, start=1):
        ball = sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= 7.5**2
        labels[ball & (labels == 0)] = number
    return labels


def test_touching_balls_are_separated_in_3d() -> None:
    labels = _balls()
    found = decode_instances(*perfect_maps(labels))
    assert found.max() == labels.max()
    assert score_instances(found, labels).f1_90 == 1


def test_seed_height_decides_between_one_and_two() -> None:
    row = np.array([0.2, 0.6, 1.0, 0.6, 0.5, 0.6, 0.9, 0.6, 0.2], np.float32).repeat(6)
    distance = np.tile(ndimage.gaussian_filter(row, 2), (15, 1))
    foreground = np.ones_like(distance)
    assert decode_instances(foreground, distance, seed_height=0.2).max() == 2
    assert decode_instances(foreground, distance, seed_height=0.5).max() == 1


def test_smoothing_follows_the_diameter() -> None:
    assert smoothing_for(None) == SMOOTHING
    assert smoothing_for(5) == SMOOTHING
    assert smoothing_for(60) == 2 * smoothing_for(30) > SMOOTHING
    assert smoothing_for(1e6) < 10, "the halo of a block stays small"


def test_a_large_object_with_ripples_is_one_and_small_touching_ones_are_two() -> None:
    grid = np.indices((90, 90))
    large = (np.square(grid - 45).sum(0) <= 30**2).astype(np.int32)
    foreground, distance = perfect_maps(large)
    distance = np.clip(distance + 0.5 * np.sin(grid[0]) * np.sin(grid[1]), 0, 1)
    assert decode_instances(foreground, distance).max() > 1
    assert decode_instances(foreground, distance, smoothing=smoothing_for(60)).max() == 1
    small = np.zeros((20, 20), np.int32)
    small[8:13, 4:9], small[8:13, 9:14] = 1, 2
    assert decode_instances(*perfect_maps(small), smoothing=smoothing_for(5)).max() == 2
    assert decode_instances(*perfect_maps(small), smoothing=smoothing_for(60)).max() == 1


@pytest.mark.parametrize("block", [1000, 7])
def test_an_object_far_less_sure_than_the_others_is_dropped(block: int) -> None:
    foreground, distance = np.zeros((2, 30, 60), np.float32)
    for columns, middle in ((slice(5, 15), 0.7), (slice(25, 35), 0.8), (slice(45, 55), 1.0)):
        foreground[5:25, columns] = 0.6
        foreground[6:24, columns.start + 1 : columns.stop - 1] = middle
        distance[5:25, columns] = 0.8
    # Means: .67, .74 and .89, rims included.
    assert decode_instances(foreground, distance, block=block).max() == 3
    kept = decode_instances(foreground, distance, min_sureness=0.8, block=block)
    assert kept.max() == 2
    assert kept[10, 30] == 1
    assert kept[10, 50] == 2
    assert decode_instances(foreground, distance, min_sureness=0.6, block=block).max() == 3


def test_flat_top_is_one_seed() -> None:
    distance = np.zeros((30, 40), np.float32)
    distance[5:25, 5:35] = 1
    assert decode_instances(distance, distance).max() == 1


@pytest.mark.parametrize("block", [1000, 9])
def test_holes_are_filled_only_inside_one_object(block: int) -> None:
    foreground = np.zeros((40, 60), np.float32)
    foreground[5:35, 5:25] = 1
    foreground[12:25, 10:20] = 0  # a hole in the first object
    foreground[5:35, 35:60] = 1
    foreground[10:20, 50:60] = 0  # a bay that opens to the border of the image
    distance = foreground * 0.9
    labels = decode_instances(foreground, distance, block=block)
    assert labels.max() == 2
    assert (labels[12:25, 10:20] == labels[8, 8]).all()
    assert (labels[10:20, 50:60] == 0).all()


@pytest.mark.parametrize("block", [1000, 9])
def test_hole_between_two_objects_stays(block: int) -> None:
    columns = np.abs(np.arange(60) - 29.5)
    distance = np.tile((columns / 30).astype(np.float32), (40, 1))  # two tops, left and right
    foreground = np.ones_like(distance)
    foreground[15:25, 25:35] = 0
    labels = decode_instances(foreground, distance, block=block)
    assert labels.max() == 2
    assert (labels[15:25, 25:35] == 0).all()


def test_small_objects_are_dropped_and_numbers_have_no_gaps(nuclei: dict[str, np.ndarray]) -> None:
    maps = perfect_maps(nuclei["fluo_small"])
    everything = decode_instances(*maps)
    sizes = np.bincount(everything.ravel())[1:]
    limit = int(np.median(sizes)) + 1
    kept = decode_instances(*maps, min_size=limit)
    assert kept.max() == (sizes >= limit).sum()
    np.testing.assert_array_equal(np.unique(kept), np.arange(kept.max() + 1))
    assert kept.dtype == np.int32


def test_half_precision_maps_give_the_same_objects(nuclei: dict[str, np.ndarray]) -> None:
    foreground, distance = perfect_maps(nuclei["fluo_large"])
    half = decode_instances(foreground.astype(np.float16), distance.astype(np.float16))
    assert score_instances(half, decode_instances(foreground, distance)).f1_90 >= 0.99


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (5, 5), (3, 1, 4), (0, 4)])
@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_extreme_maps(shape: tuple[int, ...], value: float) -> None:
    full = np.full(shape, value, np.float32)
    labels = decode_instances(full, full)
    assert labels.shape == shape
    assert labels.max(initial=0) == (value == 1 and labels.size > 0)


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 5\).*\(5, 4\)"):
        decode_instances(np.zeros((4, 5)), np.zeros((5, 4)))


def test_large_noise_is_cancelled_between_blocks() -> None:
    noise = np.random.default_rng(0).random((2, 2048, 2048), dtype=np.float32)
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    steps = []
    with pytest.raises(CancelledError):
        decode_instances(*noise, on_progress=steps.append, cancel=cancel)
    assert [step.done for step in steps] == [1, 2]
    # Blocks are small enough for an answer within a second even where everything is an object.
    assert steps[0].total >= 2 * (2048 // 512) ** 2
