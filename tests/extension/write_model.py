"""Write an untrained 3D model of two classes; run by the worker's Python."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from xlstm_unet.nets import build_network
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo import write_bundle

folder = Path(sys.argv[1])
ones, twos, threes = (1, 1, 1), (2, 2, 2), (3, 3, 3)
spec = ModelSpec(
    name=folder.name,
    description="An untrained network.",
    dimension=3,
    task="classes",
    labels=(
        Label(value=1, name="Anterior part", color=(230, 160, 60)),
        Label(value=2, name="Posterior part", color=(60, 160, 230)),
    ),
    network=NetworkSpec(
        variant="dense",
        direction="paired",
        features=(4, 8),
        kernels=(threes, threes),
        strides=(ones, twos),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    ),
    normalisation=(Normalisation(scheme="zscore"),),
    patch_size=(32, 32, 32),
    spacing=(1.0, 1.0, 1.0),
    spacing_unit="mm",
)
network = build_network(spec, generator=torch.Generator().manual_seed(0)).eval()
write_bundle(folder, spec, network, card="# A card", licence="CC0 1.0\n")
