"""The bundle of a small untrained model."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import write_bundle
from xlstm_unet.zoo.card import CardFacts, model_card


@pytest.fixture
def bundle_folder(tmp_path: Path, spec: ModelSpec, network: Network) -> Path:
    card = model_card(spec, CardFacts(data="None: it is not trained."))
    return write_bundle(tmp_path / "models" / "tiny", spec, network, card=card, licence="CC0 1.0\n")
