"""Measuring the objects of a segmentation: size, place and intensity."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.files import atomic_path
from xlstm_unet.images.image import Array, Image, Unit


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


def _measure_frame(labels: Array, channels: Array, part: Image, frame: int) -> list[ObjectMeasurement]:
    """Measure one time point: pixels sorted by label, then one reduction an object."""
    flat = labels.ravel()
    pixels = np.flatnonzero(flat)
    if not pixels.size:
        return []
    pixels = pixels[np.argsort(flat[pixels], kind="stable")]
    ordered = flat[pixels]
    starts = np.concatenate([[0], np.flatnonzero(ordered[1:] != ordered[:-1]) + 1])
    counts = np.diff(starts, append=pixels.size)
    known = part.spacing is not None
    steps = part.spacing if part.spacing is not None else (1.0,) * labels.ndim
    places = np.unravel_index(pixels, labels.shape)
    centroids = np.stack(
        [np.add.reduceat(place, starts) / counts * step for place, step in zip(places, steps, strict=True)],
        axis=1,
    )
    values = [channel.ravel()[pixels] for channel in channels]
    means = _by_channel([np.add.reduceat(v.astype(np.float64), starts) / counts for v in values])
    lowest = _by_channel([np.minimum.reduceat(v, starts) for v in values])
    highest = _by_channel([np.maximum.reduceat(v, starts) for v in values])
    return [
        ObjectMeasurement(
            label=int(ordered[start]),
            frame=frame,
            pixels=int(count),
            area=int(count) * math.prod(steps),
            centroid=tuple(centroids[i].tolist()),
            equivalent_diameter=_diameter(int(count) * math.prod(steps), labels.ndim),
            mean_intensity=tuple(means[i].tolist()),
            min_intensity=tuple(lowest[i].tolist()),
            max_intensity=tuple(highest[i].tolist()),
            unit=part.unit if known else "pixel",
        )
        for i, (start, count) in enumerate(zip(starts, counts, strict=True))
    ]


def _by_channel(columns: list[Array]) -> NDArray[np.float64]:
    return np.stack(columns, axis=1).astype(np.float64)


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
