"""Samples as a model sees them: turned to its orientation and brought to its voxel size, labels with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import Image, oriented, resample, resample_volume
from xlstm_unet.images.volumes import resampled_shape
from xlstm_unet.learn.dataset import Dataset, Sample
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.spec import ModelSpec

CLOSE = 0.02
"""Share by which a voxel size may differ from the model's and is left, as in segmentation."""
_IN_MICROMETRES = {"mm": 1e3, "µm": 1.0}


def on_model_grid(dataset: Dataset, spec: ModelSpec, *, cancel: Cancel | None = None) -> Dataset:
    """Return a data set whose samples lie on the grid of a model.

    Volumes with an affine are turned as ``spec.orientation`` says, and images with a voxel size are resampled
    to ``spec.spacing``: volumes by nnU-Net's rules, planes linearly; labels are never mixed. A sample that is
    right already is taken as it is, and one whose voxel size is not known too.

    Raises
    ------
    DatasetError
        If a sample has another dimension than the model.
    CancelledError
        If ``cancel`` says so.
    """
    if spec.spacing is None and spec.orientation is None:
        return dataset
    samples = []
    for sample in dataset.samples:
        check_cancelled(cancel)
        samples.append(_fitted(sample, spec, cancel))
    return replace(dataset, samples=tuple(samples))


def _fitted(sample: Sample, spec: ModelSpec, cancel: Cancel | None) -> Sample:
    image, labels = sample.image, sample.labels
    if len(image.spatial_axes) != spec.dimension or "T" in image.axes:
        raise DatasetError(
            f"Sample {sample.id!r} has axes {image.axes}, model {spec.name} takes {spec.dimension}D images.",
            f"Give {spec.dimension}D images without time, or choose another configuration.",
        )
    if spec.dimension == 3:
        image, turn = oriented(image, spec.orientation)
        labels = np.ascontiguousarray(turn.array(labels))
    spacing = _spacing(image, spec)
    if spacing is not None and spec.spacing is not None:
        image, labels = _resampled(image, labels, spacing, spec, cancel)
    return replace(sample, image=image, labels=labels)


def _spacing(image: Image, spec: ModelSpec) -> tuple[float, ...] | None:
    """Voxel size in the model's unit; None where it is unknown or right."""
    if spec.spacing is None or spec.spacing_unit is None or image.spacing is None or image.unit == "pixel":
        return None
    unit = _IN_MICROMETRES[image.unit] / _IN_MICROMETRES[spec.spacing_unit]
    spacing = tuple(side * unit for side in image.spacing)
    factors = (own / wanted for own, wanted in zip(spacing, spec.spacing, strict=True))
    return None if all(abs(factor - 1) <= CLOSE for factor in factors) else spacing


def _resampled(
    image: Image, labels: NDArray[np.int32], spacing: Sequence[float], spec: ModelSpec, cancel: Cancel | None
) -> tuple[Image, NDArray[np.int32]]:
    assert spec.spacing is not None
    assert spec.spacing_unit is not None
    wanted = spec.spacing
    shape = resampled_shape(labels.shape, spacing, wanted)
    array = image.array if "C" in image.axes else image.array[np.newaxis]
    if labels.ndim == 3:
        array = resample_volume(array, spacing, wanted, shape=shape, cancel=cancel)
        truth = resample_volume(
            labels[np.newaxis], spacing, wanted, shape=shape, kind="labels", cancel=cancel
        )[0]
    else:
        array = resample(array, shape=shape, cancel=cancel)
        truth = resample(labels, order=0, shape=shape, cancel=cancel)
    scaled = Image(
        array if "C" in image.axes else array[0],
        image.axes,
        wanted,
        spec.spacing_unit,
        name=image.name,
        read_as=image.read_as,
    )
    return scaled, np.asarray(truth, dtype=np.int32)
