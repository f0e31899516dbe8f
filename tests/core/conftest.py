"""A small untrained model, for the tests of bundles and of the Hub."""

from __future__ import annotations

import pytest
import torch

from xlstm_unet.nets import Network, build_network
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation


@pytest.fixture(scope="session")
def spec() -> ModelSpec:
    return ModelSpec(
        name="tiny",
        description="An untrained network for tests.",
        dimension=2,
        input_channels=3,
        accepts_gray=True,
        task="instances",
        labels=(Label(value=1, name="nucleus"),),
        network=NetworkSpec(
            variant="dense",
            direction="paired",
            features=(8, 16),
            kernels=((3, 3), (3, 3)),
            strides=((1, 1), (2, 2)),
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        ),
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(64, 64),
        object_diameter=20.0,
    )


@pytest.fixture(scope="session")
def network(spec: ModelSpec) -> Network:
    return build_network(spec, generator=torch.Generator().manual_seed(0)).eval()
