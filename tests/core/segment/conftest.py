"""Small models for the tests of segmenting, and a scene that one of them has learned to segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.learn.targets import instance_targets
from xlstm_unet.nets import Network, build_network
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

MakeSpec = Callable[..., ModelSpec]


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """Return a function that makes the specification of a small model; keywords replace fields."""

    def make(dimension: int = 2, features: tuple[int, ...] = (8, 16, 32), **fields: Any) -> ModelSpec:
        stages = len(features)
        network = NetworkSpec(
            variant="bot",
            features=features,
            kernels=((3,) * dimension,) * stages,
            strides=((1,) * dimension,) + ((2,) * dimension,) * (stages - 1),
            encoder_blocks=(1,) * stages,
            decoder_blocks=(1,) * (stages - 1),
        )
        values: dict[str, Any] = {
            "name": "small",
            "dimension": dimension,
            "task": "instances",
            "labels": (Label(value=1, name="disc"),),
            "network": network,
            "normalisation": (Normalisation(scheme="percentile"),),
            "patch_size": (64,) * dimension,
        }
        return ModelSpec(**(values | fields))

    return make


@pytest.fixture(scope="session")
def make_network() -> Callable[[ModelSpec], Network]:
    """Return a function that builds a network with the same random weights every time."""
    return lambda spec: build_network(spec, generator=torch.Generator().manual_seed(0))


def draw_discs(
    shape: tuple[int, int], diameter: float, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a noisy image (uint8) of bright discs that do not overlap, and their labels."""
    labels = np.zeros(shape, np.int32)
    rows, columns = np.indices(shape)
    for number in range(1, count + 1):
        radius = diameter / 2 * rng.uniform(0.85, 1.15)
        centre = [rng.uniform(0, n) for n in shape]
        disc = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2
        near = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= (radius + 1.5) ** 2
        if not labels[near].any():
            labels[disc] = number
    brightness = np.where(labels > 0, 150.0, 40.0) + rng.normal(0, 12, shape)
    return brightness.clip(0, 255).astype(np.uint8), labels


@pytest.fixture(scope="session")
def discs() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Return a function that draws a scene: image and labels."""

    def draw(
        shape: tuple[int, int] = (128, 128), diameter: float = 14, count: int = 60, seed: int = 1
    ) -> Any:
        return draw_discs(shape, diameter, count, np.random.default_rng(seed))

    return draw


@pytest.fixture(scope="session")
def disc_model(make_spec: MakeSpec) -> tuple[ModelSpec, Network]:
    """A model of instances that has learned, in seconds, to find discs of about 14 pixels."""
    from xlstm_unet.images import normalise

    spec = make_spec(object_diameter=14.0)
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    optimiser = torch.optim.Adam(network.parameters(), 4e-3)
    rng = np.random.default_rng(0)
    for _ in range(70):
        batch = [draw_discs((64, 64), 14, int(rng.integers(1, 20)), rng) for _ in range(4)]
        images = np.stack([normalise(image[None], spec.normalisation) for image, _ in batch])
        classes, distance = (
            np.stack(part) for part in zip(*(instance_targets(labels) for _, labels in batch), strict=True)
        )
        logits = network(torch.from_numpy(images))
        loss = torch.nn.functional.cross_entropy(logits[:, :3], torch.from_numpy(classes).long())
        loss = loss + 4 * torch.nn.functional.smooth_l1_loss(
            logits[:, 3], torch.from_numpy(distance), beta=0.05
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return spec, network.eval()
