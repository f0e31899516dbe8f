"""Building the network of a model."""

from __future__ import annotations

import torch
from torch import nn

from xlstm_unet.nets.ensemble import Ensemble
from xlstm_unet.nets.initialise import initialise
from xlstm_unet.nets.unet import Network
from xlstm_unet.spec import ModelSpec


def build_network(
    spec: ModelSpec, *, generator: torch.Generator | None = None, network_type: type[Network] | None = None
) -> Network:
    """Return the network of a model, initialised for training, on the default device.

    Parameters
    ----------
    spec
        What to build.
    generator
        Source of the initial weights; torch's global one without it.
    network_type
        Class to build, for networks of other blocks that are compared with this one; by default `Network`, or
        `Ensemble` where the model has several folds.

    Raises
    ------
    ModelError
        If the specification cannot be built.
    """
    if network_type is None:
        network_type = Network if spec.folds == 1 else Ensemble
    device = torch.get_default_device()
    with torch.device("meta"):
        network = network_type(spec)
    if device.type != "meta":
        network.to_empty(device=device)
        initialise(network, generator)
    return network


def count_parameters(network: nn.Module) -> int:
    """Return the number of weights of a network."""
    return sum(parameter.numel() for parameter in network.parameters())
