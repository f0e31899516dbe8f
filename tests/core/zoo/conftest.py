"""A small untrained model, and the bundle of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xlstm_unet.nets import Network, build_network
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import write_bundle
from xlstm_unet.zoo.card import CardFacts, model_card


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


@pytest.fixture
def bundle_folder(tmp_path: Path, spec: ModelSpec, network: Network) -> Path:
    card = model_card(spec, CardFacts(data="None: it is not trained."))
    return write_bundle(tmp_path / "models" / "tiny", spec, network, card=card, licence="CC0 1.0\n")
