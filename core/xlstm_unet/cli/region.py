"""The option that says which part of an image is segmented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from xlstm_unet.images import Image

RegionOption = Annotated[
    str | None,
    typer.Option(
        "--region",
        help="Segment this part only. In voxels, Z,Y,X: 10:60,20:90,5:40 (2D: Y,X). In the world, right, "
        "anterior, superior: 20:60,-30:10,-40:0mm (left, posterior, inferior are negative).",
    ),
]

_SPAN = re.compile(r"\s*(-?\d+(?:\.\d+)?)?\s*:\s*(-?\d+(?:\.\d+)?)?\s*")


@dataclass(frozen=True)
class Region:
    """A region as it was typed: in voxels (``slices``) or in mm of the world (``box``)."""

    slices: tuple[slice, ...] = ()
    box: tuple[tuple[float, float], ...] = ()

    def of(self, image: Image) -> tuple[slice, ...]:
        """Return the region in voxels of an image.

        Raises
        ------
        ImageError
            If the region is in mm and the image does not know its place, or lies elsewhere.
        """
        from xlstm_unet.segment.region import region_in_mm

        return region_in_mm(image, self.box) if self.box else self.slices


def parse_region(text: str | None) -> Region | None:
    """Return what ``--region`` says.

    Raises
    ------
    typer.BadParameter
        If it is no list of spans.
    """
    if text is None:
        return None
    plain = text.strip()
    in_mm = plain.lower().endswith("mm")
    parts = plain[: -2 if in_mm else None].split(",")
    spans = [match.groups() for part in parts if (match := _SPAN.fullmatch(part))]
    usable = len(spans) == len(parts) and len(parts) in ((3,) if in_mm else (2, 3))
    if usable and in_mm and all(None not in span for span in spans):
        return Region(box=tuple((float(low), float(high)) for low, high in spans))
    whole = all(end is None or "." not in end for span in spans for end in span)
    if usable and not in_mm and whole:
        return Region(tuple(slice(*(None if end is None else int(end) for end in span)) for span in spans))
    raise typer.BadParameter(
        f"{text!r} is no region such as 10:60,20:90,5:40 (voxels) or 20:60,-30:10,-40:0mm",
        param_hint="--region",
    )
