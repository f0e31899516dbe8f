"""How requests name a model and describe an image."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from xlstm_unet.images import Image, as_image
from xlstm_unet.worker.registry import Params, Task

ModelName = Annotated[str, Field(min_length=1, max_length=4096)]


class ModelParams(Params):
    """Which model."""

    model: ModelName
    """Name of an embedded or own model, or the path of a bundle."""


class ImageParams(Params):
    """How to read the array ``image``."""

    axes: Annotated[str, Field(max_length=5)] | None = None
    """One letter of TCZYX for each axis; None where they are plain."""
    spacing: tuple[float, ...] | None = None
    """Of the spatial axes, in the order Z, Y, X."""
    unit: Literal["mm", "µm", "pixel"] = "pixel"
    affine: tuple[tuple[float, float, float, float], ...] | None = None
    name: Annotated[str, Field(max_length=1000)] = "image"


def given_image(params: ImageParams, task: Task) -> Image:
    """Make the image that a request brings."""
    array, axes, read_as = task.arrays["image"], params.axes, ""
    if axes is None:
        plain = as_image(array, name=params.name)
        array, axes, read_as = plain.array, plain.axes, plain.read_as
    return Image(
        array,
        axes,
        spacing=params.spacing,
        unit=params.unit,
        affine=None if params.affine is None else np.array(params.affine),
        name=params.name,
        read_as=read_as,
    )
