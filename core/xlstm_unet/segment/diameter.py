"""Estimating the diameter of the objects in an image, with the model itself.

The model is run at scale 1 on one tile. If the objects that it finds there are about as large as those it
was trained on, the image is taken as it is. If not, other scales are tried, and the one is chosen at which
the model is surest and finds objects of the size that it knows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images import resample
from xlstm_unet.progress import Cancel
from xlstm_unet.segment.instances import decode_instances
from xlstm_unet.segment.predictor import Predictor

SMALL = 16.0
"""Diameter in pixels below which objects gain from being enlarged: their boundaries are so thin."""
LARGE = 3.0
"""Times the model's diameter up to which objects are found as they are: resampling would only blur."""
_TRUSTED = (0.4, 2.5)
"""Factors within which what is found at scale 1 needs no second look at another scale."""

_OTHER_SCALES = (0.5, 2.0, 0.25)
_FEWEST = 3
"""Objects needed for a median that means something."""
_LEAST_SURENESS = 0.75
"""Below it, what is found at another scale is enlarged noise: real objects reach .8, noise .7 at most."""
_LEAST_SIDE = 16
"""Pixels below which a shrunken tile shows nothing."""


@dataclass(frozen=True)
class Estimate:
    """What was found.

    Parameters
    ----------
    diameter
        Median diameter in pixels of the image; None where no scale shows enough objects.
    maps
        Maps of the whole image at scale 1, where the image was one tile and so they were made already.
    """

    diameter: float | None
    maps: NDArray[np.float16] | None


@dataclass(frozen=True)
class _Trial:
    scale: float
    diameter: float
    """Of the objects found, in pixels of the image."""
    sureness: float


def found_as_is(diameter: float, model_diameter: float) -> bool:
    """Whether a model finds objects of a diameter, in pixels, best without any resampling."""
    return min(SMALL, model_diameter) <= diameter <= LARGE * model_diameter


def whole_object_diameters(labels: NDArray[np.integer]) -> NDArray[np.float64]:
    """Diameter, in voxels, of the disc or ball of the same size as each object that no border cuts."""
    sizes = np.bincount(labels.reshape(-1)).astype(np.float64)
    sizes[0] = 0
    for axis in range(labels.ndim):
        sizes[np.unique(labels.take((0, -1), axis=axis))] = 0
    sizes = sizes[sizes > 0]
    if labels.ndim == 2:
        return np.asarray(2 * np.sqrt(sizes / np.pi))
    return np.asarray(2 * np.cbrt(sizes * 3 / (4 * np.pi)))


def estimate_diameter(
    array: NDArray[np.float32], predictor: Predictor, *, cancel: Cancel | None = None
) -> Estimate:
    """Estimate the median object diameter of a normalised image.

    Parameters
    ----------
    array
        (C, *spatial), float32, at scale 1.
    predictor
        A model of instances with an object diameter.
    cancel
        Asked as in `Predictor`.

    Returns
    -------
    Estimate
        In pixels of ``array``.
    """
    model_diameter = predictor.spec.object_diameter
    assert model_diameter is not None
    window = busiest_window(array, predictor.tile)
    whole = window.shape == array.shape
    maps = predictor(window, cancel=cancel)
    first = _trial(maps, 1.0, predictor, cancel)
    if first is not None and _TRUSTED[0] <= model_diameter / first.diameter <= _TRUSTED[1]:
        return Estimate(first.diameter, maps if whole else None)
    trials = [first]
    for scale in _OTHER_SCALES:
        if min(window.shape[1:]) * scale < _LEAST_SIDE:
            continue
        part = window if scale < 1 else busiest_window(window, tuple(int(n / scale) for n in predictor.tile))
        size = (scale,) * predictor.spec.dimension
        trials.append(_trial(predictor(resample(part, size), cancel=cancel), scale, predictor, cancel))
    found = [t for t in trials if t is not None and (t is first or t.sureness >= _LEAST_SURENESS)]
    if not found:
        return Estimate(None, maps if whole else None)
    best = max(found, key=lambda trial: trial.sureness * _agreement(trial, model_diameter))
    return Estimate(best.diameter, maps if whole else None)


def busiest_window(array: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the part of at most ``size`` voxels, among a grid of them, whose values vary most."""
    shape = array.shape[1:]
    starts = [
        np.unique(np.linspace(0, max(n - s, 0), -(-n // s)).astype(int))
        for n, s in zip(shape, size, strict=True)
    ]
    best, most = array, -1.0
    for corner in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, len(shape)):
        part = array[(slice(None), *(slice(c, c + s) for c, s in zip(corner, size, strict=True)))]
        spread = float(part[(slice(None), *(slice(None, None, 4) for _ in shape))].std())
        if spread > most:
            best, most = part, spread
    return best


def _trial(
    maps: NDArray[np.float16], scale: float, predictor: Predictor, cancel: Cancel | None
) -> _Trial | None:
    # Unsure objects stay in: without them noise would look as sure as objects do.
    labels = decode_instances(*maps, **predictor.spec.decoding.model_dump(), cancel=cancel)
    diameters = whole_object_diameters(labels)
    if diameters.size < _FEWEST:
        return None
    inside = labels > 0
    # A sure model says 1 for the foreground and has one clear top in every object.
    sureness = 2 * float(maps[0][inside].mean(dtype=np.float32)) - 1
    return _Trial(scale, float(np.median(diameters)) / scale, max(sureness, 0.0))


def _agreement(trial: _Trial, model_diameter: float) -> float:
    """1 where the objects found at a scale have the model's diameter, less the more they differ."""
    octaves = np.log2(trial.diameter * trial.scale / model_diameter)
    return float(np.exp(-0.5 * octaves**2))
