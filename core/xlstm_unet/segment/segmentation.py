"""What segmenting gives: labels on the image's grid, and the maps they were decoded from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from xlstm_unet.errors import ModelError
from xlstm_unet.images import Turn
from xlstm_unet.progress import Cancel, OnProgress, check_cancelled
from xlstm_unet.segment.instances import decode_instances, smoothing_for
from xlstm_unet.spec import Decoding, ModelSpec

_CHUNK = 2**22
_MIN_SURENESS = 0.5
"""Share of the median object's sureness below which an object is dropped.

Relative, so that a model that is unsure of all objects, in a domain new to it, does not lose all of them.
"""


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps on the image's voxels, kept so that thresholds can be moved without running the network again.

    Parameters
    ----------
    values
        (maps, *labelled region), float16: foreground probability and distance, or class probabilities.
    region
        Where they lie in the labels, one slice an axis.
    turn
        How the image was turned for the model, and the maps with it.
    """

    values: NDArray[np.float16]
    region: tuple[slice, ...]
    turn: Turn = field(default_factory=Turn)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels of an image.

    Parameters
    ----------
    labels
        int32 on the image's grid, its axes without C; 0 is background and everything outside the region.
    spec
        The model that made them.
    axes
        Axes of ``labels``, a subset of TZYX.
    spacing, unit, affine
        As in the image.
    maps
        On request, what `decode` works on.
    decoding
        Settings that the labels were decoded with; ``min_size`` in voxels of the image.
    diameter
        Object diameter in pixels of the image that the scale was chosen for, given or estimated.
    notes
        What the user should know: how the image was resampled, what ran short.
    seconds
        Time taken.
    device
        Where the network ran.
    """

    labels: NDArray[np.int32]
    spec: ModelSpec
    axes: str
    spacing: tuple[float, ...] | None
    unit: Literal["mm", "µm", "pixel"]
    affine: NDArray[np.float64] | None
    maps: Maps | None
    decoding: Decoding
    diameter: float | None
    notes: tuple[str, ...]
    seconds: float
    device: str = field(default="cpu")

    def decode(
        self,
        threshold: float | None = None,
        seed_height: float | None = None,
        min_size: int | None = None,
        *,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> NDArray[np.int32]:
        """Return labels from the kept maps with other settings; this object stays as it is.

        Parameters
        ----------
        threshold, seed_height, min_size
            See `xlstm_unet.segment.decode_instances`; None for the setting of ``labels``. ``min_size`` is
            in voxels of the image. A model of classes takes none of them.
        on_progress, cancel
            Called for every block.

        Raises
        ------
        ModelError
            If the maps were not kept, a setting is out of range, or any is given for a model of classes.
        CancelledError
            If ``cancel`` says so.
        """
        chosen = {"threshold": threshold, "seed_height": seed_height, "min_size": min_size}
        chosen = {name: value for name, value in chosen.items() if value is not None}
        if self.maps is None:
            raise ModelError("The maps of this segmentation were not kept.", "Segment with keep_maps=True.")
        if chosen and self.spec.task == "classes":
            raise ModelError(
                f"{', '.join(chosen)} given, but {self.spec.name} finds classes, which take no settings."
            )
        decoding = _decoding({**self.decoding.model_dump(), **chosen})
        labels = np.zeros(self.labels.shape, dtype=np.int32)
        target = labels[self.maps.region]
        n_objects = 0
        # Turns move the last three axes: planes of a turned volume, of classes always, are decoded together.
        together = 3 if self.maps.turn else self.spec.dimension
        for index in np.ndindex(target.shape[: target.ndim - together]):
            part = decode_maps(
                self.maps.values[(slice(None), *index)],
                self.spec,
                decoding,
                diameter=self.diameter,
                on_progress=on_progress,
                cancel=cancel,
            )
            n_objects = number_on(part, n_objects, self.spec)
            target[index] = self.maps.turn.back(part)
        return labels


def _decoding(values: dict[str, Any]) -> Decoding:
    try:
        return Decoding(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise ModelError(f"{first['loc'][0]} is {first['input']}: {first['msg']}.") from error


def decode_maps(
    maps: NDArray[np.float16],
    spec: ModelSpec,
    decoding: Decoding,
    *,
    diameter: float | None = None,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> NDArray[np.int32]:
    """Return the labels of one plane or volume from its maps (maps, *spatial).

    ``diameter`` is that of the objects in voxels of the maps, where it is known.
    """
    if spec.task == "instances":
        return decode_instances(
            maps[0],
            maps[1],
            threshold=decoding.threshold,
            seed_height=decoding.seed_height,
            min_size=decoding.min_size,
            min_sureness=_MIN_SURENESS,
            smoothing=smoothing_for(diameter),
            on_progress=on_progress,
            cancel=cancel,
        )
    labels = np.empty(maps.shape[1:], dtype=np.int32)
    rows = max(1, _CHUNK // max(1, maps[:, 0].size))
    for start in range(0, len(labels), rows):
        check_cancelled(cancel)
        part = maps[:, start : start + rows].astype(np.float32)
        if spec.regions:
            labels[start : start + rows] = _painted(part, spec)
        else:
            labels[start : start + rows] = part.argmax(axis=0)
    return labels


def _painted(probabilities: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.int32]:
    """Return labels from one probability a region, later regions over earlier ones."""
    labels = np.zeros(probabilities.shape[1:], dtype=np.int32)
    for region, probability in zip(spec.regions, probabilities, strict=True):
        labels[probability > 0.5] = region.paint
    return labels


def number_on(labels: NDArray[np.int32], used: int, spec: ModelSpec) -> int:
    """Make the objects of a slice follow the ``used`` numbers before it, in place; return the last number."""
    if spec.task == "classes":
        return used
    found = int(labels.max(initial=0))
    if used:
        np.add(labels, used, out=labels, where=labels > 0)
    return used + found
