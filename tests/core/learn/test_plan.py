"""Planning: fingerprints of real data, and nnU-Net's published rules."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from xlstm_unet.errors import ConfigError, DatasetError
from xlstm_unet.learn import Dataset
from xlstm_unet.learn.described import Description, labels_called
from xlstm_unet.learn.fingerprint import Fingerprint, Intensities, fingerprint
from xlstm_unet.learn.plan import (
    Wishes,
    describe,
    patch_and_topology,
    plan,
    stages,
    target_spacing,
    with_network,
)
from xlstm_unet.nets import build_network


def _volumes(shapes: list[tuple[int, ...]], spacings: list[tuple[float, ...]]) -> Fingerprint:
    return Fingerprint(
        images=len(shapes),
        dimension=3,
        channels=1,
        shapes=np.array(shapes),
        spacings=np.array(spacings),
        unit="mm",
        orientation="SAR",
        task="classes",
        largest_label=2,
        intensities=(Intensities(40.0, 20.0, -60.0, 180.0),),
    )


HIPPOCAMPUS = _volumes([(36, 50, 35)] * 160, [(1.0, 1.0, 1.0)] * 160)


def test_the_published_plan_of_the_hippocampus() -> None:
    """nnU-Net's plan for this task: patch 40 x 56 x 40, three halvings, kernels of 3."""
    config = plan("hippocampus", HIPPOCAMPUS, None, Wishes())
    assert config.model.patch_size == (40, 56, 40)
    assert config.model.network.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    assert set(config.model.network.kernels) == {(3, 3, 3)}
    assert config.model.network.features == (32, 64, 128, 256)
    assert config.model.spacing == (1, 1, 1)
    assert [entry.scheme for entry in config.model.normalisation] == ["zscore"]
    assert config.losses.scales == (1.0, 0.5, 0.25)
    assert 2 <= config.sampling.batch <= 9
    assert config.sampling.foreground == pytest.approx(1 / 3)


def test_coarse_axes_are_taken_finer_and_halved_later() -> None:
    spacings = [(5.0, 0.6, 0.6)] * 8 + [(3.0, 0.6, 0.6)] * 2
    found = _volumes([(20, 320, 320)] * 10, spacings)
    assert target_spacing(found) == pytest.approx((3.0, 0.6, 0.6))
    network = plan("prostate", found, None, Wishes()).model.network
    assert network.kernels[:3] == ((1, 3, 3), (1, 3, 3), (3, 3, 3))
    assert network.strides[:3] == ((1, 1, 1), (1, 2, 2), (1, 2, 2))
    # Thick slices that are many keep their median.
    many = _volumes([(200, 320, 320)] * 10, spacings)
    assert target_spacing(many) == pytest.approx((5.0, 0.6, 0.6))


def test_patches_fit_memory_and_divide() -> None:
    sides = (1.0, 1.0, 1.0)
    large, few = (patch_and_topology((155, 240, 240), sides, Wishes(memory=memory)) for memory in (8.0, 1.0))
    for patch, topology in (large, few):
        assert all(n % step == 0 for n, step in zip(patch, topology.divisor(), strict=True))
        assert all(n // step >= 4 for n, step in zip(patch, topology.divisor(), strict=True))
    assert np.prod(few[0]) < np.prod(large[0]) / 4
    assert np.prod(large[0]) >= 96**3


def test_images_too_small_for_two_stages_are_refused() -> None:
    with pytest.raises(ConfigError, match="5x6x7 voxels"):
        stages((5, 6, 7), (1.0, 1.0, 1.0))


def test_normalisation_follows_the_names_of_channels() -> None:
    names = ("CT", "T1", "noNorm", "rescale_to_0_1", "rgb_to_0_1")
    found = replace(HIPPOCAMPUS, channels=5, intensities=HIPPOCAMPUS.intensities * 5)
    description = Description(names, labels_called({1: "liver", 2: "tumour"}))
    model = plan("ct", found, description, Wishes()).model
    assert [entry.scheme for entry in model.normalisation] == ["ct", "zscore", "none", "rescale01", "rgb01"]
    ct = model.normalisation[0]
    assert (ct.low, ct.high, ct.mean, ct.std) == (-60, 180, 40, 20)
    assert model.channel_names == names
    assert [label.name for label in model.labels] == ["liver", "tumour"]


@pytest.mark.parametrize("variant", ["bot", "enc", "dense"])
def test_wishes_reach_the_network(variant: str) -> None:
    config = plan("x", HIPPOCAMPUS, None, Wishes(network=variant, width=4))  # type: ignore[arg-type]
    network = build_network(config.model)
    assert any("mixer" in name for name in network.state_dict())
    plain = with_network(config, None, "none").model
    assert plain.network.mixer == "none"
    assert plain.network.variant == variant
    layers = {name for name in build_network(plain).state_dict() if "proj_up" in name}
    assert not layers
    assert with_network(config, "dense", None).model.network.direction == "paired"


def test_real_nuclei_are_planned_as_objects(nuclei: Dataset) -> None:
    found = fingerprint(nuclei)
    assert (found.task, found.dimension, found.channels, found.mixed) == ("instances", 2, 3, True)
    config = plan("nuclei", found, None, Wishes(width=8, memory=0.5))
    assert config.model.accepts_gray
    assert config.model.spacing is None
    assert [label.name for label in config.model.labels] == ["object"]
    text = "\n".join(describe(config, found))
    assert "instances" in text
    assert f"Patch: {' x '.join(map(str, config.model.patch_size))}" in text
    classes = plan("nuclei", found, None, Wishes(task="classes"))
    assert len(classes.model.labels) == found.largest_label


def test_real_volumes_are_planned_in_mm(volumes: Dataset) -> None:
    found = fingerprint(volumes)
    assert (found.unit, found.orientation, found.task) == ("mm", "SAR", "classes")
    assert found.intensities[0].low < found.intensities[0].mean < found.intensities[0].high
    model = plan("hippocampus", found, volumes.description, Wishes()).model
    assert [label.name for label in model.labels] == ["anterior", "posterior"]
    assert model.channel_names == ("T1",)
    assert model.orientation == "SAR"


def test_data_that_do_not_fit_together_are_refused(nuclei: Dataset) -> None:
    gray, colour = (next(sample for sample in nuclei.samples if sample.image.channels == n) for n in (1, 3))
    two = replace(colour.image, array=colour.image.array[:2])
    with pytest.raises(DatasetError, match="2 channels"):
        fingerprint(Dataset("odd", (gray, replace(colour, image=two, split="train"))))
    with pytest.raises(DatasetError, match="labels of all training samples are empty"):
        fingerprint(Dataset("empty", (replace(gray, labels=gray.labels * 0, split="train"),)))
