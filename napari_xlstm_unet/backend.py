"""What the plugin asks of the worker process; the only place that knows the worker's methods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from napari_xlstm_unet.state import AUTOMATIC, DeviceInfo, Finding, ModelInfo
from napari_xlstm_unet.task import Piece, Task
from xlstm_unet.progress import OnProgress
from xlstm_unet.spec import Decoding, ModelSpec
from xlstm_unet.worker import Job, WorkerClient

DESCRIBE_SECONDS = 60.0


class Backend:
    """Typed calls to the worker.

    Parameters
    ----------
    client
        The worker; it starts with the first call, and again after a crash.
    """

    def __init__(self, client: WorkerClient) -> None:
        self.client = client

    def start(self) -> tuple[tuple[ModelInfo, ...], tuple[DeviceInfo, ...]]:
        """Start the worker if need be and return its models and devices; waits."""
        devices = self.client.start().get("devices", [])
        reply = self.client.request("list_models").result()
        models = tuple(
            ModelInfo(
                entry["name"],
                entry["origin"],
                entry["problem"],
                _source(entry["source"]),
                entry["licence"] or "",
                entry["size_bytes"],
            )
            for entry in reply.values["models"]
        )
        found = tuple(DeviceInfo(device["name"], device["description"]) for device in devices)
        return models, (AUTOMATIC, *found)

    def describe(self, model: str) -> ModelSpec:
        """Return what a model is; waits."""
        reply = self.client.request("describe_model", {"model": model}).result(DESCRIBE_SECONDS)
        return ModelSpec.model_validate(reply.values["spec"])

    def segment(
        self,
        task: Task,
        piece: Piece,
        *,
        model: str,
        device: str,
        diameter: float | None,
        keep_maps: bool,
        on_progress: OnProgress,
    ) -> Job:
        """Ask for the labels of one piece; returns at once."""
        params = {
            "model": model,
            "device": device,
            "axes": piece.axes,
            "spacing": task.spacing,
            "unit": task.pixels.unit,
            "affine": task.affine_of(piece),
            "name": task.image_name,
            "region": [(part.start, part.stop) for part in piece.region] if piece.region else None,
            "diameter": diameter,
            "keep": keep_maps,
        }
        return self.client.request("segment", params, {"image": piece.array}, on_progress)

    def check_fit(self, task: Task, model: str) -> tuple[Finding, ...]:
        """Return what speaks against segmenting ``task`` with ``model``; waits."""
        spatial = [axis for axis in "ZYX"[-task.dimension :] if axis in task.axes]
        channels = (
            [] if task.channels.mean or len(task.channels.indices) < 2 else [len(task.channels.indices)]
        )
        parts = [task.window[task.axes.index(axis)] for axis in spatial]
        params = {
            "model": model,
            "axes": "C" * len(channels) + "".join(spatial),
            "shape": channels + [task.array.shape[task.axes.index(axis)] for axis in spatial],
            "spacing": task.spacing,
            "unit": task.pixels.unit,
            "affine": None if task.affine is None or task.dimension == 2 else task.affine.tolist(),
            "region": [(part.start, part.stop) for part in parts],
            "diameter": task.diameter / task.factor if task.diameter else None,
            "name": task.image_name,
        }
        reply = self.client.request("check_fit", params).result(DESCRIBE_SECONDS)
        return tuple(
            Finding(entry["level"], entry["message"], entry["hint"]) for entry in reply.values["findings"]
        )

    def decode(self, handle: str, decoding: Decoding) -> Job:
        """Ask for the labels of kept maps with other settings; returns at once."""
        return self.client.request("decode", {"handle": handle, **decoding.model_dump()})

    def release(self, handles: Iterable[str]) -> None:
        """Let the worker forget maps."""
        for handle in handles:
            self.client.request("release", {"handle": handle})


def _source(source: Mapping[str, Any] | None) -> str:
    return f"{source['repo']} at {source['revision'][:8]}" if source else ""
