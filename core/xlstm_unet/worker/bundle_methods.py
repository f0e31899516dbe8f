"""Bundles that travel through the pipe, and models made of others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from xlstm_unet.errors import BundleError, ModelError
from xlstm_unet.worker.images import ModelParams
from xlstm_unet.worker.protocol import Array, Reply
from xlstm_unet.worker.registry import Method, Params, Task
from xlstm_unet.zoo.bundle import CARD, LICENCE, REPLAY, SPEC, WEIGHTS, read_bundle
from xlstm_unet.zoo.place import atomic_folder
from xlstm_unet.zoo.store import find_model, own_folder
from xlstm_unet.zoo.untrusted import read_plain_file
from xlstm_unet.zoo.versions_record import RECORD
from xlstm_unet.zoo.widen import add_labels

MAX_FILE_BYTES = 4 << 30
_NEEDED = (SPEC, WEIGHTS)
_FILES = (*_NEEDED, CARD, LICENCE, REPLAY, RECORD)


class PutParams(Params):
    """Parameters of ``put_bundle``."""

    name: Annotated[str, Field(min_length=1, max_length=64)]


class NewLabel(Params):
    """A class that a new model is to know."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    color: tuple[int, int, int] = (255, 170, 0)
    terminology: Annotated[str, Field(max_length=4096)] = ""


class NewModelParams(ModelParams):
    """Parameters of ``new_model``."""

    name: Annotated[str, Field(min_length=1, max_length=64)]
    labels: Annotated[tuple[NewLabel, ...], Field(min_length=1, max_length=100)]


def methods() -> tuple[Method, ...]:
    """Return what can be done."""
    return (
        Method("get_bundle", ModelParams, get_bundle, lane="quick"),
        Method("put_bundle", PutParams, put_bundle, frozenset(_NEEDED), frozenset(_FILES), lane="quick"),
        Method("new_model", NewModelParams, new_model),
    )


def get_bundle(params: ModelParams, task: Task) -> Reply:
    """Answer with the files of a bundle."""
    folder = find_model(params.model)
    files: dict[str, Array] = {
        name: np.frombuffer(read_plain_file(folder / name, MAX_FILE_BYTES), np.uint8)
        for name in _FILES
        if (folder / name).exists()
    }
    return Reply({"name": folder.name}, files)


def put_bundle(params: PutParams, task: Task) -> Reply:
    """Take a bundle's files as a model of the user's, after checking them as any bundle from outside."""
    folder = own_folder(params.name)

    def check() -> None:
        if folder.exists() and not _holds(folder, task.arrays):
            raise ModelError(f"There is a model {params.name!r} already.", "Choose another name.")

    with atomic_folder(folder, check) as partial:
        for name, array in task.arrays.items():
            if array.dtype != np.uint8 or array.ndim != 1:
                raise BundleError(f"{name} came as {array.dtype} of {array.ndim} axes, expected bytes.")
            (partial / name).write_bytes(array.tobytes())
        read_bundle(partial).read_replay()
    return Reply({"name": params.name, "folder": str(folder)})


def new_model(params: NewModelParams, task: Task) -> Reply:
    """Make a model that knows further classes."""
    folder = add_labels(params.model, params.name, [label.model_dump() for label in params.labels])
    return Reply({"name": params.name, "folder": str(folder)})


def _holds(folder: Path, files: dict[str, Array]) -> bool:
    """Whether a folder holds just these files."""
    return all(
        (folder / name).is_file() and (folder / name).read_bytes() == array.tobytes()
        for name, array in files.items()
    )
