"""Pixel size of TIFF files: from OME-XML, ImageJ's description or the resolution tags."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import tifffile

from xlstm_unet.images.image import Unit

Spacing = tuple[float, ...] | None

_IN_MICROMETRES = {
    "pm": 1e-6,
    "å": 1e-4,
    "nm": 1e-3,
    "µm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "mm": 1e3,
    "cm": 1e4,
    "m": 1e6,
    "in": 25400.0,
    "inch": 25400.0,
}
_PRINT_MICROMETRES = 20.0
"""Plain resolution tags that make a pixel larger than this (under 1270 dpi) are meant for print."""


def read_spacing(file: tifffile.TiffFile, axes: str) -> tuple[Spacing, Unit, str]:
    """Find the pixel size.

    Parameters
    ----------
    file
        Open file; its first series counts.
    axes
        Axes of the image.

    Returns
    -------
    spacing
        For the spatial axes present, in the order Z, Y, X; None where unknown.
    unit
        ``mm`` for sizes given in mm, cm, m or inches, else ``µm``; ``pixel`` where unknown.
    note
        What to tell the user, empty or starting with a comma.
    """
    if file.is_ome:
        sizes, text = _ome(file)
    elif file.is_imagej:
        sizes, text = _imagej(file)
    else:
        return _tags(file, axes)
    factor = _IN_MICROMETRES.get(_plain(text))
    if factor is None or not all(_positive(sizes.get(axis)) for axis in "YX"):
        return None, "pixel", ", pixel size not stated"
    note = ""
    if "Z" in axes and not _positive(sizes.get("Z")):
        sizes["Z"] = sizes["X"]
        note = ", Z step not stated and taken equal to the pixel size"
    unit: Unit = "mm" if factor >= 1e3 else "µm"
    scale = factor / (1e3 if unit == "mm" else 1.0)
    return tuple(float(sizes[axis] or 0) * scale for axis in "ZYX" if axis in axes), unit, note


def _ome(file: tifffile.TiffFile) -> tuple[dict[str, float | None], str]:
    root = ElementTree.fromstring(file.ome_metadata or "<OME/>")
    pixels = next((element for element in root.iter() if element.tag.rpartition("}")[2] == "Pixels"), None)
    if pixels is None:
        return {}, ""
    units = {axis: _plain(pixels.get(f"PhysicalSize{axis}Unit", "µm")) for axis in "XYZ"}
    sizes: dict[str, float | None] = {}
    for axis in "XYZ":
        size = _number(pixels.get(f"PhysicalSize{axis}"))
        ratio = _IN_MICROMETRES.get(units[axis], math.nan) / _IN_MICROMETRES.get(units["X"], math.nan)
        sizes[axis] = size * ratio if size is not None and math.isfinite(ratio) else None
    return sizes, units["X"]


def _imagej(file: tifffile.TiffFile) -> tuple[dict[str, float | None], str]:
    metadata: dict[str, Any] = file.imagej_metadata or {}
    tags = file.pages.first.tags
    sizes = {
        "X": _per_pixel(tags.valueof("XResolution")),
        "Y": _per_pixel(tags.valueof("YResolution")),
        "Z": _number(metadata.get("spacing")),
    }
    return sizes, str(metadata.get("unit", ""))


def _tags(file: tifffile.TiffFile, axes: str) -> tuple[Spacing, Unit, str]:
    tags = file.pages.first.tags
    per_unit = {2: 25400.0, 3: 10000.0}.get(int(tags.valueof("ResolutionUnit", 2)))
    size_x, size_y = (_per_pixel(tags.valueof(name)) for name in ("XResolution", "YResolution"))
    if per_unit is None or size_x is None or size_y is None:
        return None, "pixel", ", pixel size not stated"
    if max(size_x, size_y) * per_unit > _PRINT_MICROMETRES:
        return (
            None,
            "pixel",
            f", resolution tag ({25400 / (size_x * per_unit):.0f} dpi) taken as meant for print",
        )
    sizes = {"Z": size_x, "Y": size_y, "X": size_x}
    note = ", Z step not stated and taken equal to the pixel size" if "Z" in axes else ""
    return tuple(sizes[axis] * per_unit for axis in "ZYX" if axis in axes), "µm", note


def _per_pixel(resolution: Any) -> float | None:
    """Size of a pixel from a resolution tag: a fraction of pixels per unit."""
    try:
        pixels, length = (float(value) for value in resolution)
    except (TypeError, ValueError):
        return None
    return length / pixels if pixels > 0 and length > 0 else None


def _plain(unit: str) -> str:
    text = unit.strip().replace("\\u00B5", "µ").replace("μ", "µ").replace("Å", "å")
    return text.lower()


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if _positive(value) else None


def _positive(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
