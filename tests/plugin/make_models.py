"""Writes small untrained models into the folder given: run apart, for torch must not be where napari is."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xlstm_unet.nets import build_network
from xlstm_unet.spec import Decoding, Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import write_bundle


def make_spec(name: str, dimension: int, task: str, channels: int = 1) -> ModelSpec:
    return ModelSpec(
        name=name,
        description="An untrained network for tests.",
        dimension=dimension,
        input_channels=channels,
        task=task,
        labels=[Label(value=1, name="nucleus")]
        if task == "instances"
        else [
            Label(value=1, name="left", color=(255, 0, 0)),
            Label(value=2, name="right", color=(0, 0, 255)),
        ],
        network=NetworkSpec(
            variant="dense",
            direction="paired",
            features=(4, 8),
            kernels=((3,) * dimension,) * 2,
            strides=((1,) * dimension, (2,) * dimension),
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        ),
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(64,) * dimension if dimension == 2 else (16, 32, 32),
        object_diameter=20.0 if task == "instances" else None,
        decoding=Decoding(threshold=0.5, seed_height=0.1, min_size=4),
    )


def main(home: Path) -> None:
    for number, (name, dimension, task, channels) in enumerate(
        [
            ("plane", 2, "instances", 1),
            ("volume", 3, "instances", 1),
            ("halves", 2, "classes", 1),
            ("pair", 2, "instances", 2),
        ]
    ):
        made = make_spec(name, dimension, task, channels)
        network = build_network(made, generator=torch.Generator().manual_seed(number)).eval()
        write_bundle(home / "models" / name, made, network, card="", licence="CC0 1.0\n")


main(Path(sys.argv[1]))
