"""How well a predicted map of classes agrees with the true one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.spec import Label

NSD_TOLERANCE_MM = 1.0
"""How far apart two surfaces may be and still count as agreeing."""


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one image.

    The surface of a mask is its pixels with a neighbour along an axis outside it; outside the image is
    outside the mask. Distances run from centre to centre of pixels.

    - ``dice`` = 2 |P and T| / (|P| + |T|), in pixels.
    - ``nsd_1mm``: normalised surface Dice (Nikolov et al. 2021) with surface pixels counted instead of
      surface area: the share of the pixels of both surfaces that lie within 1 mm of the other one.
    - ``hd95_mm``: the larger of the 95th percentiles of the distances from either surface to the other.

    Where the class is in neither, they are 1, 1 and 0; where in only one, 0, 0 and the diagonal of the
    image in mm (the largest distance there can be), so that means over images stay finite.
    """

    dice: float
    nsd_1mm: float
    hd95_mm: float


def score_classes(
    prediction: ArrayLike, truth: ArrayLike, labels: Sequence[Label], spacing_mm: Sequence[float]
) -> dict[str, ClassScores]:
    """Score every class of a prediction.

    Parameters
    ----------
    prediction, truth
        Integers of the same shape, any dimension: the class of each pixel, 0 for background.
    labels
        The classes to score.
    spacing_mm
        Distance between pixels along each axis, in mm. With ones, ``nsd_1mm`` and ``hd95_mm`` are in pixels.

    Returns
    -------
    scores
        By name of the label.

    Raises
    ------
    ImageError
        If shapes differ or the spacing does not fit them.
    """
    predicted, true = np.asarray(prediction), np.asarray(truth)
    spacing = tuple(float(step) for step in spacing_mm)
    if predicted.shape != true.shape:
        raise ImageError(
            f"Prediction of shape {predicted.shape} and truth of shape {true.shape} differ.",
            "Both must lie on the same grid.",
        )
    if len(spacing) != true.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ImageError(f"Spacing {spacing} mm, expected {true.ndim} positive numbers.")
    return {
        label.name: _score_mask(predicted == label.value, true == label.value, spacing) for label in labels
    }


def _score_mask(
    predicted: NDArray[np.bool_], true: NDArray[np.bool_], spacing: tuple[float, ...]
) -> ClassScores:
    n_pred, n_true = int(np.count_nonzero(predicted)), int(np.count_nonzero(true))
    if n_pred == 0 and n_true == 0:
        return ClassScores(1.0, 1.0, 0.0)
    if n_pred == 0 or n_true == 0:
        diagonal = math.hypot(*((n - 1) * step for n, step in zip(true.shape, spacing, strict=True)))
        return ClassScores(0.0, 0.0, diagonal)
    common = int(np.count_nonzero(predicted & true))
    to_true, to_pred = surface_distances(predicted, true, spacing)
    within = int(
        np.count_nonzero(to_true <= NSD_TOLERANCE_MM) + np.count_nonzero(to_pred <= NSD_TOLERANCE_MM)
    )
    return ClassScores(
        dice=2 * common / (n_pred + n_true),
        nsd_1mm=within / (to_true.size + to_pred.size),
        hd95_mm=float(max(np.percentile(to_true, 95), np.percentile(to_pred, 95))),
    )


def surface_distances(
    first: NDArray[np.bool_], second: NDArray[np.bool_], spacing: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Measure how far each surface pixel of one mask is from the surface of the other.

    Parameters
    ----------
    first, second
        Masks of the same shape, neither empty.
    spacing
        Distance between pixels along each axis.

    Returns
    -------
    first_to_second, second_to_first
        One distance a surface pixel, in units of ``spacing``.
    """
    from scipy.ndimage import distance_transform_edt

    box = _box(first | second)
    surfaces = [_surface(mask[box]) for mask in (first, second)]
    first_to_second, second_to_first = (
        distance_transform_edt(~other, sampling=spacing)[own] for own, other in (surfaces, surfaces[::-1])
    )
    return first_to_second, second_to_first


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box around a mask that is not empty."""
    box = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy.ndimage import binary_erosion

    inner: NDArray[np.bool_] = binary_erosion(mask)
    return mask & ~inner
