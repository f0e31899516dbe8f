"""What a worker does for its front: describing, segmenting, decoding again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from xlstm_unet.errors import CorrectionsError
from xlstm_unet.nets.runtime import best_device, compute_dtype
from xlstm_unet.segment import Segmentation
from xlstm_unet.segment.keep import keep_classes, keep_objects
from xlstm_unet.worker import bundle_methods, hub_methods
from xlstm_unet.worker.finetune_methods import FineTuning
from xlstm_unet.worker.images import ImageParams, ModelParams, given_image
from xlstm_unet.worker.kept import KeptResults
from xlstm_unet.worker.protocol import Reply
from xlstm_unet.worker.registry import Method, Params, Task
from xlstm_unet.worker.warm import WarmModels
from xlstm_unet.zoo import ModelEntry, list_models, load_model

Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]
Handle = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]

_SUMMARY = {
    "description",
    "dimension",
    "input_channels",
    "channel_names",
    "accepts_gray",
    "task",
    "labels",
    "object_diameter",
    "spacing",
    "spacing_unit",
    "decoding",
    "field_of_view",
}


class SegmentParams(ModelParams, ImageParams):
    """Parameters of ``segment``."""

    device: str = "auto"
    region: Annotated[tuple[Span, ...], Field(min_length=2, max_length=3)] | None = None
    """Start and stop along each spatial axis; None: all."""
    diameter: Annotated[float, Field(gt=0)] | None = None
    """Diameter of the objects in pixels of the image; None: estimated or the model's."""
    mirror: bool | None = None
    """Average over mirrored copies: slower, a little better; None: as the model says."""
    keep: bool = False
    """Keep the maps in the worker and return their handle."""


class HandleParams(Params):
    """A kept result."""

    handle: Handle


class DecodeParams(HandleParams):
    """Parameters of ``decode``; None: the model's own."""

    threshold: Annotated[float, Field(gt=0, lt=1)] | None = None
    seed_height: Annotated[float, Field(gt=0, lt=1)] | None = None
    min_size: Annotated[int, Field(ge=0)] | None = None


class LoadParams(ModelParams):
    """Parameters of ``load_model``."""

    device: str = "auto"


class Session:
    """The state of a worker: loaded models and kept maps."""

    def __init__(self) -> None:
        self._models = WarmModels()
        self._kept = KeptResults()
        self._tuning = FineTuning()

    def describe(self) -> dict[str, Any]:
        """Return the devices and models that there are."""
        return {"devices": describe_devices(), "models": [summarise(entry) for entry in list_models()]}

    def methods(self) -> tuple[Method, ...]:
        """Return what this session can do."""
        image = frozenset({"image"})
        return (
            Method("list_models", Params, self.list_models, lane="quick"),
            Method("describe_model", ModelParams, self.describe_model, lane="quick"),
            Method("load_model", LoadParams, self.load_model),
            Method("segment", SegmentParams, self.segment, image, _Work.ARRAYS),
            Method("decode", DecodeParams, self.decode, lane="quick", replaces=lambda params: params.handle),
            Method("release", HandleParams, self.release, lane="quick"),
            *hub_methods.methods(),
            *bundle_methods.methods(),
            *self._tuning.methods(),
        )

    def list_models(self, params: Params, task: Task) -> Reply:
        """Answer with a summary of every model."""
        return Reply({"models": [summarise(entry) for entry in list_models()]})

    def describe_model(self, params: ModelParams, task: Task) -> Reply:
        """Answer with a model's specification and card."""
        bundle = load_model(params.model)
        return Reply({"spec": bundle.spec.model_dump(mode="json"), "card": bundle.card})

    def load_model(self, params: LoadParams, task: Task) -> Reply:
        """Load a model ahead of the first image."""
        return Reply({"device": str(self._models.get(params.model, params.device).device)})

    def segment(self, params: SegmentParams, task: Task) -> Reply:
        """Answer with the labels of an image."""
        segmenter = self._models.get(params.model, params.device)
        image = given_image(params, task)
        work = _Work.given(task, image.label_shape, segmenter.spec.task)
        result = segmenter(
            image,
            region=_slices(params.region),
            diameter=params.diameter,
            keep_maps=params.keep,
            mirror=params.mirror,
            on_progress=task.progress,
            cancel=task.cancelled,
        )
        handle = self._kept.keep((result, work)) if params.keep else None
        notes = list(result.notes)
        if params.keep and handle is None:
            notes.append("The maps are too large to be kept: segment again to change thresholds.")
        values = {
            "handle": handle,
            "axes": result.axes,
            "read_as": image.read_as,
            "kept": 0 if work is None else work.count(),
            "decoding": result.decoding.model_dump(),
            "diameter": result.diameter,
            "notes": notes,
            "seconds": result.seconds,
            "device": result.device,
        }
        labels = result.labels if work is None else work.pasted_into(result.labels)
        return Reply(values | {"objects": int(labels.max(initial=0))}, {"labels": labels})

    def decode(self, params: DecodeParams, task: Task) -> Reply:
        """Answer with labels decoded anew from kept maps."""
        result: Segmentation
        work: _Work | None
        result, work = self._kept.get(params.handle)
        labels = result.decode(
            params.threshold,
            params.seed_height,
            params.min_size,
            on_progress=task.progress,
            cancel=task.cancelled,
        )
        if work is not None:
            labels = work.pasted_into(labels)
        return Reply({"objects": int(labels.max(initial=0))}, {"labels": labels})

    def release(self, params: HandleParams, task: Task) -> Reply:
        """Forget kept maps."""
        return Reply({"released": self._kept.release(params.handle)})


@dataclass(frozen=True, eq=False)
class _Work:
    """A user's labels with their states, to be pasted into a new segmentation."""

    ARRAYS: ClassVar[frozenset[str]] = frozenset({"keep_labels", "keep_states"})

    labels: NDArray[np.integer]
    states: NDArray[np.uint8]
    task: str

    @classmethod
    def given(cls, task: Task, shape: tuple[int, ...], kind: str) -> _Work | None:
        """Take what a request brought, if it did."""
        labels, states = (task.arrays.get(name) for name in ("keep_labels", "keep_states"))
        if labels is None and states is None:
            return None
        if labels is None or states is None or labels.shape != shape or states.shape != shape:
            found = [None if array is None else array.shape for array in (labels, states)]
            raise CorrectionsError(
                f"keep_labels and keep_states have shapes {found}, expected twice {shape}."
            )
        if labels.dtype.kind not in "iu" or states.dtype != np.uint8:
            raise CorrectionsError(
                f"keep_labels and keep_states are {labels.dtype} and {states.dtype}, "
                "expected integers and uint8."
            )
        return cls(labels, states, kind)

    def pasted_into(self, fresh: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return new labels with the user's in them."""
        paste = keep_objects if self.task == "instances" else keep_classes
        return paste(fresh, self.labels, self.states)

    def count(self) -> int:
        """Number of objects (or classes) that are kept."""
        values = np.unique(self.labels[self.states > 0])
        return int(np.count_nonzero(values))


def describe_devices() -> list[dict[str, Any]]:
    """Return name, description and arithmetic of every device, the one that ``auto`` means first."""
    cpu = {"name": "cpu", "description": f"CPU, {torch.get_num_threads()} threads"}
    devices = [
        {"name": f"cuda:{index}", "description": torch.cuda.get_device_name(index)}
        for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    ]
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "description": "Apple GPU"})
    return [
        {**device, "dtype": str(compute_dtype(best_device(device["name"]))).removeprefix("torch.")}
        for device in (*devices, cpu)
    ]


def summarise(entry: ModelEntry) -> dict[str, Any]:
    """Return what a front shows of a model before it is loaded."""
    spec = {} if entry.spec is None else entry.spec.model_dump(mode="json", include=_SUMMARY)
    return {
        "name": entry.name,
        "origin": entry.origin,
        "folder": str(entry.folder),
        "size_bytes": entry.size_bytes,
        "problem": entry.problem,
        "source": None if entry.source is None else entry.source.model_dump(),
        "pinned": entry.pinned,
        "licence": entry.licence,
        "scores": dict(entry.scores),
        **spec,
    }


def _slices(region: tuple[Span, ...] | None) -> tuple[slice, ...] | None:
    return None if region is None else tuple(slice(*span) for span in region)
