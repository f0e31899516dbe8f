"""Otsu's threshold with a watershed, and the plain U-Net."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image
from xlstm_unet.learn import Dataset, TrainConfig
from xlstm_unet.measure import score_instances
from xlstm_unet.nets import Network, build_network, prepare
from xlstm_unet.nets.blocks import ResidualBlock
from xlstm_unet.nets.vil import ViLLayer
from xlstm_unet.study.baselines import PlainUNet, convolution_flops, otsu_watershed, plain_unet_spec


def test_fluorescence_is_segmented(fluorescence: Dataset) -> None:
    for sample in fluorescence.samples:
        scores = score_instances(otsu_watershed(sample.image), sample.labels)
        assert scores.f1_50 > 0.75, sample.id


def test_dark_objects_are_found_as_well_as_bright_ones(fluorescence: Dataset) -> None:
    image = fluorescence.samples[0].image
    inverted = replace(image, array=255 - image.array)
    assert score_instances(otsu_watershed(inverted), otsu_watershed(image)).f1_75 > 0.95


def test_colour_and_volumes_are_taken() -> None:
    ball = np.linalg.norm(np.indices((20, 30, 30)) - np.array([10, 15, 15]).reshape(3, 1, 1, 1), axis=0) < 7
    labels = otsu_watershed(Image(np.stack([ball * 200, ball * 90]).astype(np.uint8), "CZYX"))
    assert labels.shape == (20, 30, 30)
    assert labels.max() == 1
    assert score_instances(labels, ball.astype(int)).f1_90 == 1


def test_constant_image_is_empty_and_time_series_are_refused() -> None:
    assert otsu_watershed(Image(np.full((20, 20), 7, np.uint8), "YX")).max() == 0
    with pytest.raises(ImageError, match="TYX"):
        otsu_watershed(Image(np.zeros((2, 20, 20), np.uint8), "TYX"))


def test_plain_network_has_plain_blocks_only(tiny: TrainConfig) -> None:
    network = build_network(tiny.model, network_type=PlainUNet)
    assert isinstance(network, PlainUNet)
    assert not [m for m in network.modules() if isinstance(m, ResidualBlock | ViLLayer)]
    image = torch.rand(1, 3, 50, 70)
    logits = network(image)
    assert logits.shape == (1, 4, 50, 70)
    prepared = prepare(network, torch.device("cpu"), precision="float32")
    with torch.inference_mode():
        torch.testing.assert_close(prepared(image), logits.detach(), rtol=1e-3, atol=1e-3)


def test_plain_network_costs_as_much() -> None:
    model = TrainConfig.read("nuclei").model
    without = model.network.model_copy(update={"mixer": "none"})
    ours = convolution_flops(Network, model.model_copy(update={"network": without}))
    assert convolution_flops(PlainUNet, plain_unet_spec(model)) == pytest.approx(ours, rel=0.1)


def test_flops_are_those_of_the_convolutions() -> None:
    fields = {
        "variant": "bot",
        "mixer": "none",
        "features": [4, 8],
        "kernels": [[3, 3], [3, 3]],
        "strides": [[1, 1], [2, 2]],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1],
    }
    base = {
        "name": "a",
        "dimension": 2,
        "task": "instances",
        "labels": [{"value": 1, "name": "a"}],
        "normalisation": [{"scheme": "none"}],
        "patch_size": [16, 16],
    }
    model = TrainConfig.model_validate({"model": {**base, "network": fields}}).model
    fine, coarse = 16 * 16, 8 * 8
    expected = fine * 9 * (1 * 4 + 4 * 4)  # first stage
    expected += coarse * 9 * (4 * 8 + 8 * 8)  # second
    expected += coarse * 8 * 4 + fine * 9 * (8 * 4 + 4 * 4) + fine * 4 * 4  # decoder and head
    assert convolution_flops(PlainUNet, model) == 2 * expected
