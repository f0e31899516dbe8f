"""The embedded models on real images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import xlstm_unet as xu
from xlstm_unet.images import read_image, read_labels, resample
from xlstm_unet.measure import score_instances
from xlstm_unet.nets import count_parameters
from xlstm_unet.segment import Segmenter
from xlstm_unet.zoo import load_model

FLOORS = {
    "fluo_small": 0.80,
    "fluo_large": 0.90,
    "fluo_tissue": 0.45,
    "hist_purple_on_purple": 0.45,
    "hist_purple_on_white": 0.55,
    "hist_pink_he": 0.45,
    "brightfield_gray": 0.55,
}
"""F1 at IoU .5 that an image of each kind must reach, far above Otsu's threshold with a watershed."""


@pytest.fixture(scope="module")
def nuclei() -> Segmenter:
    return xu.load("nuclei", device="cpu")


def test_model_is_small() -> None:
    bundle = load_model("nuclei")
    assert count_parameters(bundle.build()) <= 4_000_000
    assert sum(file.stat().st_size for file in bundle.folder.iterdir()) <= 8_000_000
    pack = bundle.read_replay()
    assert pack is not None
    assert len(pack.train) >= 5
    assert not {patch.id for patch in pack.train} & {patch.id for patch in pack.check}


@pytest.mark.parametrize("kind", FLOORS)
def test_nuclei_of_every_kind_are_found(nuclei: Segmenter, data: Path, kind: str) -> None:
    image = read_image(data / "nuclei" / "images" / f"{kind}.png")
    truth = read_labels(data / "nuclei" / "labels" / f"{kind}.png")
    assert score_instances(nuclei(image).labels, truth).f1_50 >= FLOORS[kind]


def test_images_without_nuclei_give_no_objects(nuclei: Segmenter) -> None:
    drawn = np.random.default_rng(0)
    bright = drawn.normal(100, 5, (200, 240)).astype(np.float32)
    for background in (
        drawn.poisson(3, (200, 240)).astype(np.uint16),
        bright,
        gaussian_filter(bright, 1.0),
        bright + np.linspace(0, 60, 240, dtype=np.float32),
        np.full((200, 240), 7, np.uint8),
    ):
        assert nuclei(background).labels.max() == 0


def test_tiny_nuclei_are_found_by_estimating_their_diameter(nuclei: Segmenter, data: Path) -> None:
    image = read_image(data / "nuclei" / "images" / "fluo_small.png")
    truth = read_labels(data / "nuclei" / "labels" / "fluo_small.png")
    gray = image.array.astype(np.float32)
    small = resample(gray[None], (1 / 3, 1 / 3))[0]
    fine = truth[:: truth.shape[0] // small.shape[0], :: truth.shape[1] // small.shape[1]]
    fine = fine[: small.shape[0], : small.shape[1]]
    small = small[: fine.shape[0], : fine.shape[1]]
    with_estimate = nuclei(small)
    as_it_is = nuclei(small, diameter=nuclei.spec.object_diameter)
    estimated = score_instances(with_estimate.labels, fine).f1_50
    assert with_estimate.diameter is not None
    assert estimated > score_instances(as_it_is.labels, fine).f1_50 + 0.1
    assert estimated > 0.4
