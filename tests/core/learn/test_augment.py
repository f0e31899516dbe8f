"""Warps of crops, and the bank they are taken from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import Image, read_image, read_labels
from xlstm_unet.learn import Dataset, Sample, TrainConfig, instance_targets
from xlstm_unet.learn.augment import Warps, draw_warps
from xlstm_unet.learn.bank import Bank, crop_batch, network_input
from xlstm_unet.learn.optimise import BatchSource

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def samples(nuclei: Dataset) -> list[Sample]:
    return [sample for sample in nuclei.samples if sample.id in ("fluo_small", "hist_purple_on_white")]


def _still(count: int, centre: tuple[float, ...]) -> Warps:
    axes = len(centre)
    return Warps(
        torch.tensor(centre).expand(count, axes), torch.eye(axes).expand(count, axes, axes), torch.zeros(0)
    )


def test_crops_without_a_warp_are_the_pixels_of_the_image(samples: list[Sample], tiny: TrainConfig) -> None:
    bank = Bank(samples, tiny.model, CPU)
    coordinates = _still(2, (47.5, 39.5)).coordinates((32, 16), CPU)
    crops = bank.take(torch.tensor([0, 1]), coordinates)
    for row, sample in enumerate(samples):
        distance = instance_targets(sample.labels)[1]
        window = (slice(32, 64), slice(32, 48))
        assert crops.distance is not None
        np.testing.assert_allclose(crops.image[row], network_input(sample, tiny.model)[:, *window], atol=2e-3)
        np.testing.assert_array_equal(crops.labels[row], sample.labels[window])
        np.testing.assert_allclose(crops.distance[row], distance[window], atol=1e-3)


def test_beyond_its_border_an_image_is_mirrored(samples: list[Sample], tiny: TrainConfig) -> None:
    bank = Bank(samples[:1], tiny.model, CPU)
    labels = samples[0].labels
    crop = bank.take(torch.tensor([0]), _still(1, (-0.5, 7.5)).coordinates((16, 16), CPU)).labels[0].numpy()
    np.testing.assert_array_equal(crop[8:], labels[:8, :16])
    np.testing.assert_array_equal(crop[:8], labels[1:9, :16][::-1])


def test_magnified_crops_keep_true_distances(samples: list[Sample], tiny: TrainConfig) -> None:
    bank = Bank(samples[:1], tiny.model, CPU)
    twice = Warps(torch.tensor([[40.0, 40.0]]), torch.eye(2)[None] / 2, torch.zeros(0))
    crops = bank.take(torch.tensor([0]), twice.coordinates((33, 33), CPU))
    labels = samples[0].labels
    distance = instance_targets(labels)[1]
    assert crops.distance is not None
    np.testing.assert_allclose(crops.distance[0, ::2, ::2], distance[32:49, 32:49], atol=1e-3)
    np.testing.assert_array_equal(crops.labels[0, ::2, ::2], labels[32:49, 32:49])


def test_the_same_seed_draws_the_same_batches(samples: list[Sample], tiny: TrainConfig) -> None:
    bank = Bank(samples, tiny.model, CPU)
    first, second = (BatchSource(bank, ["a", "b"], tiny) for _ in range(2))
    for _ in range(3):
        (image, targets), (again, same) = first.draw(), second.draw()
        assert torch.equal(image, again)
        assert torch.equal(targets.classes, same.classes)
        assert torch.isfinite(image).all()


def test_objects_are_never_made_smaller_than_allowed(
    samples: list[Sample], tiny_fields: dict[str, Any]
) -> None:
    tiny_fields["geometry"] = {"probability": 1.0, "scale": [0.1, 8.0], "aspect": 1.0, "max_diameter": 40.0}
    config = TrainConfig.model_validate(tiny_fields)
    bank = Bank(samples, config.model, CPU)
    images = torch.tensor([0, 1] * 200)
    warps = draw_warps(bank, images, (64, 64), config, torch.Generator().manual_seed(0))
    magnification = 1 / torch.linalg.det(warps.matrix).abs().sqrt()
    diameters = bank.diameters[images] * magnification
    assert diameters.min() >= config.geometry.min_diameter - 1e-3
    assert diameters.max() <= 40 + 1e-3
    assert diameters.max() / diameters.min() > 3


def test_forbidden_mirrorings_do_not_happen(samples: list[Sample], tiny_fields: dict[str, Any]) -> None:
    tiny_fields["geometry"] = {"probability": 0.0, "flips": [True, False]}
    config = TrainConfig.model_validate(tiny_fields)
    bank = Bank(samples, config.model, CPU)
    warps = draw_warps(
        bank, torch.zeros(64, dtype=torch.int64), (32, 32), config, torch.Generator().manual_seed(0)
    )
    assert (warps.matrix[:, 1, 1] == 1).all()
    assert set(warps.matrix[:, 0, 0].tolist()) == {-1.0, 1.0}


def test_crops_of_a_volume(data: Path, tiny_fields: dict[str, Any]) -> None:
    sample = _hippocampus(data)
    model = tiny_fields["model"]
    model |= {"dimension": 3, "input_channels": 1, "accepts_gray": False, "patch_size": [16, 16, 16]}
    model |= {"task": "classes", "normalisation": [{"scheme": "zscore"}]}
    model["labels"] = [{"value": 1, "name": "anterior"}, {"value": 2, "name": "posterior"}]
    model["network"] |= {"kernels": [[3] * 3] * 3, "strides": [[1] * 3, [2] * 3, [2] * 3]}
    tiny_fields |= {
        "sampling": {"batch": 3, "foreground": 1.0, "empty": 0.0},
        "geometry": {"tilt_degrees": 20},
    }
    config = TrainConfig.model_validate(tiny_fields)
    source = BatchSource(Bank([sample], config.model, CPU), [""], config)
    image, targets = source.draw()
    assert image.shape == (3, 1, 16, 16, 16)
    assert targets.distance is None
    assert targets.classes.unique().tolist() == [0, 1, 2]


def test_labels_that_the_model_lacks_are_named(samples: list[Sample], tiny_fields: dict[str, Any]) -> None:
    tiny_fields["model"]["task"] = "classes"
    config = TrainConfig.model_validate(tiny_fields)
    with pytest.raises(DatasetError, match=r"fluo_small.*label \d+, the model has labels 1 to 1"):
        Bank(samples, config.model, CPU)


def test_images_that_the_model_cannot_take_are_named(samples: list[Sample], tiny: TrainConfig) -> None:
    two = Sample("odd", "train", "odd", "", Image(np.ones((2, 8, 8)), "CYX"), np.zeros((8, 8), np.int32))
    with pytest.raises(DatasetError, match=r"'odd'.*2 channels"):
        Bank([*samples, two], tiny.model, CPU)


def test_larger_crops_make_smaller_batches() -> None:
    assert crop_batch(16, (256, 256), (512, 512)) == 4
    assert crop_batch(16, (256, 256), (128, 128)) == 64
    assert crop_batch(1, (64, 64), (512, 512)) == 1


def _hippocampus(data: Path) -> Sample:
    image = read_image(next((data / "hippocampus" / "images").iterdir()))
    labels = read_labels(next((data / "hippocampus" / "labels").iterdir()))
    return Sample("one", "train", "one", "", image, labels)
