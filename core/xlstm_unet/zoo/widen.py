"""A model that knows more classes than the one it is made of, and the old ones as well as before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from xlstm_unet.errors import ModelError
from xlstm_unet.learn.finetune import check_can_learn
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.bundle import read_bundle, write_bundle
from xlstm_unet.zoo.store import find_model, own_folder

NEW_CLASS_BIAS = -3.0
"""What a new class begins with, against the background that it is a copy of: it is found nowhere at first."""
_HEAD = ".head."


def add_labels(model: str | Path, name: str, labels: Sequence[Mapping[str, Any]]) -> Path:
    """Write a model of the user's that knows further classes, ready to be fine-tuned on corrections of them.

    Everything but the head is the same; the head has one row more a class, a copy of the background's.

    Parameters
    ----------
    model
        A model of classes.
    name
        Name of the new model.
    labels
        Fields of each new label but its value: ``name``, and ``color`` and ``terminology`` if wanted.

    Returns
    -------
    Path
        The new model's folder.

    Raises
    ------
    ModelError
        If the model finds single objects, cannot be fine-tuned, or a label or the name cannot be had.
    OutputError
        If it cannot be written.
    """
    bundle = read_bundle(find_model(model))
    check_can_learn(bundle.spec)
    if bundle.spec.task != "classes":
        raise ModelError(
            f"{bundle.spec.name} finds single objects of one kind; another kind is learnt by fine-tuning it.",
            "Correct the objects and press Fine-tune.",
        )
    folder = own_folder(name)
    if folder.exists():
        raise ModelError(f"There is a model {name!r} already.", "Choose another name.")
    spec = _widened(bundle.spec, name, labels)
    network = build_network(spec)
    state = {}
    for key, tensor in bundle.weights.items():
        if _HEAD in key:
            rows = tensor[:1].repeat(len(labels), *([1] * (tensor.ndim - 1)))
            tensor = torch.cat([tensor, rows + NEW_CLASS_BIAS if tensor.ndim == 1 else rows])
        state[key] = tensor
    network.load_state_dict(state)
    return write_bundle(
        folder,
        spec,
        network,
        card=bundle.card,
        licence=bundle.licence,
        replay=bundle.read_replay(),
        dtype="float32",
    )


def _widened(spec: ModelSpec, name: str, labels: Sequence[Mapping[str, Any]]) -> ModelSpec:
    fields = spec.model_dump()
    first = len(spec.labels) + 1
    fields["labels"] = [*fields["labels"], *({**label, "value": first + n} for n, label in enumerate(labels))]
    fields |= {"name": name, "description": f"{spec.description} Started from {spec.name}.".strip()}
    names = [label["name"] for label in fields["labels"] if "name" in label]
    if not labels or len(set(names)) != len(names):
        raise ModelError(
            f"New labels are {names[first - 1 :]}, expected at least one with a name of its own."
        )
    try:
        return ModelSpec.model_validate(fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise ModelError(f"{where}: {problem['msg']} (found {problem['input']!r:.80}).") from error
