"""What a worker does about models: searching the Hub, fetching, showing, keeping."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from xlstm_unet.worker.protocol import Reply
from xlstm_unet.worker.registry import Method, Params, Task
from xlstm_unet.zoo import fit, get, hub, manage, show
from xlstm_unet.zoo.bundle import read_spec
from xlstm_unet.zoo.store import find_model

Name = Annotated[str, Field(min_length=1, max_length=4096)]
Span = tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]]


class SearchParams(Params):
    """Parameters of ``search_models``."""

    query: Annotated[str, Field(max_length=200)] = ""
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class ModelParams(Params):
    """A model here, or ``owner/name[@revision]`` on the Hub."""

    model: Name


class GetParams(ModelParams):
    """Parameters of ``get_model``."""

    name: Annotated[str, Field(max_length=64)] | None = None
    max_bytes: Annotated[int, Field(ge=0)] = hub.LARGE_BYTES


class RenameParams(ModelParams):
    """Parameters of ``rename_model``."""

    name: Annotated[str, Field(max_length=64)]


class PinParams(ModelParams):
    """Parameters of ``pin_model``."""

    pinned: bool


class FitParams(ModelParams):
    """Parameters of ``check_fit``: the description of an image, not its pixels."""

    axes: Annotated[str, Field(min_length=2, max_length=5)]
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Field(min_length=2, max_length=5)]
    spacing: tuple[float, ...] | None = None
    unit: Literal["mm", "µm", "pixel"] = "pixel"
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    region: Annotated[tuple[Span, ...], Field(min_length=2, max_length=3)] | None = None
    diameter: Annotated[float, Field(gt=0)] | None = None
    name: Annotated[str, Field(max_length=1000)] = "image"


def methods() -> tuple[Method, ...]:
    """Return the methods that have to do with the Hub and the store."""
    return (
        Method("search_models", SearchParams, search_models, lane="network"),
        Method("show_model", ModelParams, show_model, lane="network"),
        Method("get_model", GetParams, get_model, lane="network"),
        Method("remove_model", ModelParams, remove_model, lane="network"),
        Method("rename_model", RenameParams, rename_model, lane="quick"),
        Method("pin_model", PinParams, pin_model, lane="quick"),
        Method("check_fit", FitParams, check_fit, lane="quick"),
    )


def search_models(params: SearchParams, task: Task) -> Reply:
    """Answer with the models on the Hub that fit a query."""
    return Reply({"models": show.search_results(params.query, params.limit)})


def show_model(params: ModelParams, task: Task) -> Reply:
    """Answer with all that is known of a model, here or on the Hub."""
    return Reply(show.describe(params.model))


def get_model(params: GetParams, task: Task) -> Reply:
    """Fetch a model into the store."""
    model = hub.look_up(params.model)
    got = get.get_model(
        model,
        name=params.name,
        max_bytes=params.max_bytes,
        on_progress=task.progress,
        cancel=task.cancelled,
    )
    source = None if got.entry.source is None else got.entry.source.model_dump()
    values: dict[str, Any] = {
        "name": got.entry.name,
        "folder": str(got.entry.folder),
        "source": source,
        "size_bytes": got.entry.size_bytes,
        "already": got.already,
    }
    return Reply(values)


def remove_model(params: ModelParams, task: Task) -> Reply:
    """Remove a model from the store."""
    return Reply({"freed_bytes": manage.remove_model(params.model)})


def rename_model(params: RenameParams, task: Task) -> Reply:
    """Give a model another name."""
    folder = manage.rename_model(params.model, params.name)
    return Reply({"name": folder.name, "folder": str(folder)})


def pin_model(params: PinParams, task: Task) -> Reply:
    """Hold a model as it is, or let it go."""
    return Reply({"pinned": manage.pin_model(params.model, params.pinned).pinned})


def check_fit(params: FitParams, task: Task) -> Reply:
    """Say whether a model fits an image."""
    image = fit.described_image(
        params.axes,
        params.shape,
        spacing=params.spacing,
        unit=params.unit,
        affine=params.affine,
        name=params.name,
    )
    region = None if params.region is None else tuple(slice(*span) for span in params.region)
    findings = fit.check_fit(
        read_spec(find_model(params.model)), image, region=region, diameter=params.diameter
    )
    return Reply(
        {
            "fits": all(finding.level != "stop" for finding in findings),
            "findings": [asdict(finding) for finding in findings],
        }
    )
