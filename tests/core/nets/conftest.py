"""Specifications of small networks, and the released ones' weights, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

MakeSpec = Callable[..., ModelSpec]


def make_spec_(
    variant: str = "bot",
    patch: tuple[int, ...] = (32, 48),
    stages: int = 4,
    *,
    base: int = 4,
    widest: int = 16,
    channels: int = 1,
    labels: int = 2,
    strides: tuple[tuple[int, ...], ...] | None = None,
    kernels: tuple[tuple[int, ...], ...] | None = None,
    **network: object,
) -> ModelSpec:
    """Return a specification with blocks and skips as the release sets them."""
    dimension = len(patch)
    single_encoder, single_decoder = math.ceil(stages / 2), math.ceil((stages - 1) / 2 + 0.5)
    return ModelSpec(
        name="small",
        dimension=dimension,
        input_channels=channels,
        task="classes",
        labels=tuple(Label(value=v, name=str(v)) for v in range(1, labels + 1)),
        network=NetworkSpec(
            **{
                "variant": variant,
                "features": tuple(min(base * 2**s, widest) for s in range(stages)),
                "kernels": kernels or ((3,) * dimension,) * stages,
                "strides": strides or ((1,) * dimension,) + ((2,) * dimension,) * (stages - 1),
                "encoder_blocks": tuple(1 + (s < single_encoder) for s in range(stages)),
                "decoder_blocks": tuple(1 + (s < single_decoder) for s in range(stages - 1)),
                "channel_tokens": variant == "enc",
                "finest_skip": dimension == 3,
                **network,
            }
        ),
        normalisation=(Normalisation(scheme="zscore"),),
        patch_size=patch,
    )


@pytest.fixture(scope="session")
def make_spec() -> MakeSpec:
    """Function that makes a small specification."""
    return make_spec_


@pytest.fixture(scope="session")
def copied_golden() -> Path:
    """Folder of two released networks (enc_2d, bot_3d) that travels with the tests."""
    return Path(__file__).parent / "data"
