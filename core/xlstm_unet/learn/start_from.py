"""A new model that starts from the weights of another one; what it is to find anew gets a new head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import ValidationError
from torch import Tensor

from xlstm_unet.errors import ConfigError, ModelError
from xlstm_unet.learn.config import Optimiser, TrainConfig
from xlstm_unet.nets import Network
from xlstm_unet.spec import Decoding, ModelSpec

OPTIMISER = Optimiser(steps=2000, learning_rate=1e-3, warmup=50, average=0.99)
"""Used where no configuration is given: a start from good weights needs fewer steps."""
_HEAD = ".head."


def start_config(
    spec: ModelSpec, name: str, *, labels: Sequence[str] = (), config: TrainConfig | None = None
) -> TrainConfig:
    """Return the configuration of a model that starts from another one.

    Parameters
    ----------
    spec
        The model to start from.
    name
        Name of the new one.
    labels
        Names of the classes that the new one finds; none: it finds what the old one does. Not with
        ``config``.
    config
        What the new model is and how it is trained; only its network is taken from ``spec``. None: all is
        taken from ``spec``.

    Raises
    ------
    ConfigError
        If the configuration has another dimension, or labels come twice.
    ModelError
        If the model is made of several networks.
    """
    if spec.folds > 1:
        raise ModelError(
            f"{spec.name} is made of {spec.folds} networks; a new model starts from one.",
            "Choose another model.",
        )
    if config is None:
        return TrainConfig(model=_new_model(spec, name, labels), optimiser=OPTIMISER)
    if labels:
        raise ConfigError("Labels are given twice: by name and in the configuration.", "Leave one out.")
    if config.model.dimension != spec.dimension:
        raise ConfigError(
            f"{config.model.name} is {config.model.dimension}D and {spec.name} is {spec.dimension}D.",
            "Start from a model of the same dimension.",
        )
    model = config.model.model_copy(update={"network": spec.network})
    return config.model_copy(update={"model": model}).adapted(name=name)


def starting_weights(root: ModelSpec, weights: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """Return the weights of a model that another one starts from: its heads only if both find the same.

    Parameters
    ----------
    root
        The model to start from.
    weights
        Its weights.
    spec
        The new one.
    """
    same = _found_by(root) == _found_by(spec)
    return {name: tensor for name, tensor in weights.items() if same or _HEAD not in name}


@torch.no_grad()
def copy_fitting(network: Network, weights: Mapping[str, Tensor]) -> list[str]:
    """Copy every tensor whose name and shape fit, and return the names of the network's others.

    Parameters
    ----------
    network
        Freshly initialised; changed in place.
    weights
        Of the model to start from.
    """
    fresh = []
    for name, tensor in network.state_dict().items():
        given = weights.get(name)
        if given is None or given.shape != tensor.shape:
            fresh.append(name)
        else:
            tensor.copy_(given)
    return fresh


def _found_by(spec: ModelSpec) -> tuple[object, ...]:
    return spec.task, [(label.value, label.name) for label in spec.labels], spec.regions


def _new_model(spec: ModelSpec, name: str, labels: Sequence[str]) -> ModelSpec:
    changes: dict[str, object] = {
        "name": name,
        "description": f"Started from {spec.name}.",
        "object_diameter": None,
        "decoding": Decoding(),
    }
    if labels:
        changes |= {
            "task": "classes",
            "labels": [{"value": i, "name": label} for i, label in enumerate(labels, start=1)],
            "regions": (),
        }
    try:
        return ModelSpec.model_validate({**spec.model_dump(), **changes})
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the model"
        raise ConfigError(f"{field}: {first['msg']} (found {first['input']!r:.80}).") from error
