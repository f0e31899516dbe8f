"""What the plugin asks of the worker about corrections, fine-tuning and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xlstm_unet.learn_state import SavedCorrections, Version
from napari_xlstm_unet.task import Index, Piece, Task
from xlstm_unet.progress import OnProgress
from xlstm_unet.spec import ModelSpec
from xlstm_unet.worker import Job, WorkerClient

SECONDS = 60.0
"""How long a quick answer may take."""

Arrays = dict[str, NDArray[Any]]


class Learning:
    """Typed calls to the worker; all but `finetune` wait.

    Parameters
    ----------
    client
        The worker.
    """

    def __init__(self, client: WorkerClient) -> None:
        self._client = client

    def preview(self, model: str, arrays: Arrays) -> tuple[dict[str, int], NDArray[np.uint8]]:
        """Return counts and states of ``prediction``, ``labels`` and perhaps ``accepted``."""
        reply = self._client.request("preview_corrections", {"model": model}, arrays).result(SECONDS)
        return reply.values["counts"], reply.arrays["states"]

    def save(self, model: str, image: Mapping[str, Any], diameter: float | None, arrays: Arrays) -> None:
        """Put the corrections of one image into the store, or take them out if there are none."""
        params = {"model": model, "diameter": diameter, **image}
        self._client.request("save_corrections", params, arrays).result(SECONDS)

    def list_corrections(self, model: str | None = None) -> tuple[SavedCorrections, ...]:
        """Return what is in the store, the newest first."""
        reply = self._client.request("list_corrections", {"model": model} if model else {}).result(SECONDS)
        return tuple(SavedCorrections.of(entry) for entry in reply.values["corrections"])

    def load_corrections(self, entry: str, image: Mapping[str, Any], array: NDArray[Any]) -> Arrays:
        """Return prediction, labels and accepted; an error if they are not of this image."""
        reply = self._client.request("load_corrections", {"id": entry, **image}, {"image": array})
        return dict(reply.result(SECONDS).arrays)

    def forget(self, ids: Sequence[str]) -> list[Any]:
        """Remove corrections from the store; return the versions that were trained on them."""
        reply = self._client.request("forget_corrections", {"ids": list(ids)}).result(SECONDS)
        return list(reply.values["versions"])

    def finetune(self, model: str, device: str, budget: float, on_progress: OnProgress) -> Job:
        """Start to fine-tune; returns at once."""
        params = {"model": model, "device": device, "budget": budget}
        return self._client.request("finetune", params, on_progress=on_progress)

    def stop(self) -> None:
        """Ask a running fine-tuning to end with the best so far; returns at once."""
        self._client.request("stop_finetune")

    def keep(self, version: str, *, force: bool) -> Version:
        """Make a pending version the model's current one."""
        reply = self._client.request("keep_version", {"version": version, "force": force}).result()
        return Version.of(reply.values)

    def discard(self, version: str) -> None:
        """Remove a pending version."""
        self._client.request("discard_version", {"version": version}).result(SECONDS)

    def models(self) -> list[dict[str, Any]]:
        """Return every fine-tuned model with its versions."""
        return list(self._client.request("list_versions").result(SECONDS).values["models"])

    def new_model(self, model: str, name: str, labels: Sequence[str]) -> ModelSpec:
        """Make a model that knows further classes than ``model``; return what it is."""
        params = {"model": model, "name": name, "labels": [{"name": label} for label in labels]}
        self._client.request("new_model", params).result(SECONDS)
        reply = self._client.request("describe_model", {"model": name}).result(SECONDS)
        return ModelSpec.model_validate(reply.values["spec"])

    def undo(self, model: str) -> None:
        """Go back to the parent of the current version."""
        self._client.request("undo_version", {"model": model}).result(SECONDS)

    def use(self, model: str, number: int) -> None:
        """Make a version current."""
        self._client.request("use_version", {"model": model, "version": number}).result(SECONDS)


def image_name(task: Task, index: Index) -> str:
    """Return what the store calls a piece."""
    return ", ".join(part for part in (task.image_name, task.place(index)) if part)


def image_params(task: Task, piece: Piece, index: Index) -> dict[str, Any]:
    """Return how the worker is to read the array of a piece, and what to call it."""
    return {
        "axes": piece.axes,
        "spacing": task.spacing,
        "unit": task.pixels.unit,
        "affine": task.affine_of(piece),
        "name": image_name(task, index),
    }
