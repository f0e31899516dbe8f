"""Measuring the objects of a segmentation: size, place and intensity."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from xlstm_unet.files import atomic_path
from xlstm_unet.images.image import Array, Image, Unit
from xlstm_unet.measure.compact import compact_labels


@dataclass(frozen=True)
class ObjectMeasurement:
    """One object. Lengths are in ``unit``: mm or µm where the image's spacing is known, else pixels."""

    label: int
    frame: int
    """Time point, from 0."""
    pixels: int
    """Number of pixels or voxels."""
    area: float
    """Area in ``unit``², or volume in ``unit``³ where the image has a Z axis."""
    centroid: tuple[float, ...]
    """Mean of the pixel centres, axis order of the array, from the centre of the first pixel, in ``unit``."""
    equivalent_diameter: float
    """Diameter of the circle (sphere) of the same area (volume), in ``unit``."""
    mean_intensity: tuple[float, ...]
    """One number a channel, as are the next two."""
    min_intensity: tuple[float, ...]
    max_intensity: tuple[float, ...]
    unit: Unit


def measure_objects(labels: ArrayLike, image: Image) -> list[ObjectMeasurement]:
    """Measure every object.

    Parameters
    ----------
    labels
        Integers, axes ``image.label_axes``; 0 is background. A label in several time points counts as one
        object each time.
    image
        The image: intensities, spacing and unit.

    Raises
    ------
    ImageError
        If the labels do not fit the image.
    """
    array = image.check_labels(labels)
    measurements: list[ObjectMeasurement] = []
    for index, part in image.parts(3):
        frame = index[0] if index else 0
        channels = part.array if "C" in part.axes else part.array[np.newaxis]
        measurements.extend(_measure_frame(array[index], channels, part, frame))
    return measurements


def _measure_frame(labels: Array, channels: Array, part: Image, frame: int) -> Iterator[ObjectMeasurement]:
    """Measure one time point, each object in the smallest box around it."""
    from scipy.ndimage import find_objects

    compact, values = compact_labels(labels, part.name)
    steps = part.spacing if part.spacing is not None else (1.0,) * labels.ndim
    for index, box in enumerate(find_objects(compact), start=1):
        if box is None:
            continue
        mask = compact[box] == index
        count = int(np.count_nonzero(mask))
        area = count * math.prod(steps)
        intensity = channels[(slice(None), *box)][:, mask]
        yield ObjectMeasurement(
            label=int(values[index]),
            frame=frame,
            pixels=count,
            area=area,
            centroid=tuple(
                float((side.start + place.mean()) * step)
                for side, place, step in zip(box, np.nonzero(mask), steps, strict=True)
            ),
            equivalent_diameter=_diameter(area, labels.ndim),
            mean_intensity=tuple(intensity.mean(axis=1, dtype=np.float64).tolist()),
            min_intensity=tuple(map(float, intensity.min(axis=1))),
            max_intensity=tuple(map(float, intensity.max(axis=1))),
            unit=part.unit if part.spacing is not None else "pixel",
        )


def _diameter(area: float, dimension: int) -> float:
    return 2 * math.sqrt(area / math.pi) if dimension == 2 else (6 * area / math.pi) ** (1 / 3)


def write_measurements(path: Path | str, measurements: Sequence[ObjectMeasurement], image: Image) -> None:
    """Write measurements as CSV (UTF-8, comma, one row an object), whole or not at all.

    Columns: ``label, frame, pixels, area`` (``volume`` for stacks), ``centroid_z`` (stacks), ``centroid_y,
    centroid_x, equivalent_diameter, unit``, then ``mean_1, min_1, max_1`` and so on for each channel. The
    unit is ``um``, ``mm`` or ``pixel``.

    Parameters
    ----------
    path
        The file.
    measurements
        What `measure_objects` gave; may be empty.
    image
        The image they are of.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    spatial = image.spatial_axes.lower()
    header = ["label", "frame", "pixels", "volume" if "z" in spatial else "area"]
    header += [f"centroid_{axis}" for axis in spatial] + ["equivalent_diameter", "unit"]
    header += [
        f"{what}_{channel + 1}" for channel in range(image.channels) for what in ("mean", "min", "max")
    ]
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for m in measurements:
            per_channel = zip(m.mean_intensity, m.min_intensity, m.max_intensity, strict=True)
            sizes = [m.area, *m.centroid, m.equivalent_diameter]
            writer.writerow(
                [m.label, m.frame, m.pixels]
                + [f"{value:.6g}" for value in sizes]
                + [m.unit.replace("µ", "u")]
                + [f"{value:.6g}" for triple in per_channel for value in triple]
            )
