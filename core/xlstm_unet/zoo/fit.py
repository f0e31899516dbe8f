"""Whether a model fits an image, said before anything is computed: no pixels and no weights are needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from xlstm_unet.errors import ImageError, ModelError
from xlstm_unet.images import Image, oriented
from xlstm_unet.images.prepare import channels_first
from xlstm_unet.segment.region import check_field_of_view, crop, region_slices
from xlstm_unet.segment.scale import Scale, given_scale
from xlstm_unet.spec import ModelSpec

STRONG_SCALING = 4.0
"""Images that are resampled by more than this differ much from what a model has seen."""
_MIN_SIDE = 8
"""Fewer voxels than this along an axis, at the model's scale, hold no object."""


@dataclass(frozen=True)
class Finding:
    """One thing to know about a model and an image.

    Parameters
    ----------
    level
        ``stop``: the model cannot take the image; ``warn``: the result may be poor; ``note``: good to know.
    about
        What it concerns.
    message, hint
        As for errors.
    """

    level: Literal["stop", "warn", "note"]
    about: Literal["dimension", "channels", "spacing", "diameter", "field-of-view"]
    message: str
    hint: str = ""


def check_fit(
    spec: ModelSpec,
    image: Image,
    *,
    region: Sequence[slice] | None = None,
    diameter: float | None = None,
) -> list[Finding]:
    """Return what speaks against segmenting an image with a model; an empty list: nothing.

    Parameters
    ----------
    spec
        The model.
    image
        The image; its values are not looked at.
    region, diameter
        As the segmenter would be given them.

    Raises
    ------
    ImageError
        If the region is none of the image.
    """
    findings = _dimension(spec, image)
    if any(finding.level == "stop" for finding in findings):
        return findings
    part = next(image.parts(spec.dimension))[1]
    try:
        channels_first(part, spec)
    except ImageError as error:
        findings.append(Finding("stop", "channels", error.message, error.hint))
    window = region_slices(image, region)
    try:
        check_field_of_view(image, spec, window)
    except ImageError as error:
        findings.append(Finding("stop", "field-of-view", error.message, error.hint))
        return findings
    inner = replace(crop(image, window), affine=image.affine)
    turned = oriented(inner, spec.orientation if spec.dimension == 3 else None)[0]
    return findings + _scale(spec, next(turned.parts(spec.dimension))[1], diameter)


def _dimension(spec: ModelSpec, image: Image) -> list[Finding]:
    depth = dict(zip(image.axes, image.array.shape, strict=True)).get("Z", 1)
    if spec.dimension == 3 and depth == 1:
        return [
            Finding(
                "stop",
                "dimension",
                f"{image.name}: the image is flat ({image.axes}), model {spec.name} takes volumes.",
                "Choose a 2D model, or pass axes if the image is a stack.",
            )
        ]
    if spec.dimension == 2 and depth > 1:
        return [
            Finding(
                "note",
                "dimension",
                f"{image.name}: {depth} slices are segmented one by one; objects are not joined across them.",
                "Choose a 3D model where there is one.",
            )
        ]
    return []


def _scale(spec: ModelSpec, image: Image, diameter: float | None) -> list[Finding]:
    about: Literal["diameter", "spacing"] = "diameter" if spec.spacing is None or diameter else "spacing"
    try:
        scale = given_scale(image, spec, diameter)
    except (ImageError, ModelError) as error:
        return [Finding("stop", "diameter", error.message, error.hint)]
    if scale is None:
        return [
            Finding(
                "note",
                "diameter",
                f"{image.name}: the diameter of the objects will be estimated.",
                f"Give it if you know it; the model's objects have {spec.object_diameter:.3g} pixels.",
            )
        ]
    return [*_size(spec, image, scale, about), *_change(spec, image, scale, about)]


def _size(
    spec: ModelSpec, image: Image, scale: Scale, about: Literal["diameter", "spacing"]
) -> list[Finding]:
    try:
        shape = scale.shape(image, image.spatial_shape, spec)
    except ImageError as error:
        return [Finding("stop", about, error.message, error.hint)]
    if min(shape) >= _MIN_SIDE or min(image.spatial_shape) < _MIN_SIDE:
        return []
    return [
        Finding(
            "warn",
            about,
            f"{image.name}: at the scale of {spec.name} only {' x '.join(map(str, shape))} voxels are left.",
            f"Check the {'diameter' if about == 'diameter' else 'voxel size'}.",
        )
    ]


def _change(
    spec: ModelSpec, image: Image, scale: Scale, about: Literal["diameter", "spacing"]
) -> list[Finding]:
    unknown = spec.spacing is not None and (image.spacing is None or image.unit == "pixel")
    if unknown and about == "spacing":
        return [
            Finding("warn", "spacing", f"{image.name}: {scale.note}", "Set the voxel size if you know it.")
        ]
    strong = max(max(factor, 1 / factor) for factor in scale.factors)
    if strong > STRONG_SCALING:
        return [
            Finding(
                "warn",
                about,
                f"{image.name}: the image is resampled by {' x '.join(f'{f:.3g}' for f in scale.factors)} "
                f"for model {spec.name}.",
                f"Check the {'diameter' if about == 'diameter' else 'voxel size'}, or choose another model.",
            )
        ]
    return []


def described_image(
    axes: str,
    shape: Sequence[int],
    *,
    spacing: Sequence[float] | None = None,
    unit: Literal["mm", "µm", "pixel"] = "pixel",
    affine: Sequence[Sequence[float]] | None = None,
    name: str = "image",
) -> Image:
    """Make an image of which only the description is known; it takes no memory.

    Raises
    ------
    ImageError
        If axes, shape or spacing cannot be an image's.
    """
    if len(axes) != len(shape):
        raise ImageError(f"{name}: axes are {axes!r}, expected {len(shape)} letters for {tuple(shape)}.")
    pixels = np.broadcast_to(np.zeros((), np.uint8), tuple(shape))
    return Image(
        pixels,
        axes,
        spacing=None if spacing is None else tuple(spacing),
        unit=unit,
        affine=None if affine is None else np.array(affine),
        name=name,
    )
