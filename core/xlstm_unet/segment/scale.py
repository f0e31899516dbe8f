"""At which scale a model sees an image: by pixel size, or by the diameter of the objects."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from xlstm_unet.errors import ImageError, ModelError
from xlstm_unet.images import Image
from xlstm_unet.images.limits import check_size
from xlstm_unet.spec import ModelSpec

Factors = tuple[float, ...]

MIN_DIAMETER = 1.0
_CLOSE = 0.02
"""Factors within this of 1 are taken as 1."""
IN_MICROMETRES = {"mm": 1e3, "µm": 1.0}
"""Micrometres of the units that voxel sizes are given in."""


@dataclass(frozen=True)
class Scale:
    """How an image is resampled for a model.

    Parameters
    ----------
    factors
        New size divided by old along each spatial axis.
    diameter
        Object diameter in pixels of the image that this stands for; None where nothing is known.
    note
        What to tell the user; empty where the image is taken as it is.
    """

    factors: Factors
    diameter: float | None = None
    note: str = ""

    def min_size(self, spec: ModelSpec) -> int:
        """Smallest object in voxels of the image.

        Enlarging shows no new detail, so a speck of an enlarged image must be larger at the model's scale to
        be believed: the limit falls with the square root of what a voxel is enlarged by, not with all of it.
        """
        voxels = prod(self.factors)
        return round(spec.decoding.min_size / (voxels if voxels < 1 else voxels**0.5))

    def shape(self, image: Image, shape: tuple[int, ...], spec: ModelSpec) -> tuple[int, ...]:
        """Size of an image of ``shape`` at the model's scale.

        Raises
        ------
        ImageError
            If that is too large to be computed.
        """
        size = tuple(max(1, round(n * factor)) for n, factor in zip(shape, self.factors, strict=True))
        try:
            check_size(image.name, (spec.input_channels, *size), 4)
        except ImageError as error:
            what = "object diameter" if self.diameter else "spacing"
            raise ImageError(f"At the scale of {spec.name}: {error.message}", f"Check the {what}.") from error
        return size


def given_scale(image: Image, spec: ModelSpec, diameter: float | None) -> Scale | None:
    """Return the scale that follows from what is known, or None where the diameter must be estimated.

    Parameters
    ----------
    image
        One plane or volume, as the model takes it.
    spec
        The model.
    diameter
        Object diameter in pixels of the image, as the user gave it.

    Raises
    ------
    ImageError
        If the diameter is not a usable number.
    ModelError
        If a diameter is given for a model that has none.
    """
    if diameter is not None:
        return diameter_scale(spec, _checked_diameter(diameter, spec), "given")
    if spec.spacing is not None and image.spacing is not None and image.unit != "pixel":
        return _spacing_scale(image.spacing, image.unit, spec)
    if spec.task == "instances" and spec.object_diameter is not None:
        return None
    if spec.spacing is None:
        return Scale((1.0,) * spec.dimension)
    return Scale(
        (1.0,) * spec.dimension,
        note=f"Spacing unknown: taken as {size_text(spec.spacing, spec.spacing_unit)}, the model's.",
    )


def diameter_scale(spec: ModelSpec, diameter: float, origin: str) -> Scale:
    """Scale at which objects of a diameter, in pixels of the image, have the model's."""
    assert spec.object_diameter is not None
    factor = _rounded(spec.object_diameter / diameter)
    note = f"Object diameter {diameter:.1f} pixels ({origin})"
    note += f": image resampled by {factor:.2f}." if factor != 1 else "."
    return Scale((factor,) * spec.dimension, diameter, note)


def _spacing_scale(spacing: tuple[float, ...], unit: str, spec: ModelSpec) -> Scale:
    assert spec.spacing is not None
    assert spec.spacing_unit is not None
    in_model_unit = IN_MICROMETRES[unit] / IN_MICROMETRES[spec.spacing_unit]
    factors = tuple(_rounded(s * in_model_unit / m) for s, m in zip(spacing, spec.spacing, strict=True))
    diameter = spec.object_diameter / factors[-1] if spec.object_diameter is not None else None
    note = ""
    if any(factor != 1 for factor in factors):
        note = f"Resampled from {size_text(spacing, unit)} to {size_text(spec.spacing, spec.spacing_unit)}."
    return Scale(factors, diameter, note)


def _checked_diameter(diameter: float, spec: ModelSpec) -> float:
    if spec.object_diameter is None:
        raise ModelError(
            f"diameter is {diameter}, but model {spec.name} has no object diameter to scale to.",
            "Leave the diameter out.",
        )
    # Written so that NaN is refused too.
    if not MIN_DIAMETER <= diameter < float("inf"):
        raise ImageError(
            f"diameter is {diameter}, expected at least {MIN_DIAMETER:g} pixel.",
            "Measure a typical object, or leave the diameter out to have it estimated.",
        )
    return float(diameter)


def _rounded(factor: float) -> float:
    return 1.0 if abs(factor - 1) <= _CLOSE else factor


def size_text(size: tuple[float, ...], unit: str | None) -> str:
    """Return a voxel size in words."""
    return " x ".join(f"{n:.3g}" for n in size) + f" {unit}"
