"""Changed images: other scales, other content, and images that hold nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images import Image, resample
from xlstm_unet.learn import Sample

Array = NDArray[Any]

MAX_SIDE = 2048
"""Of an image that would become larger the middle is taken."""
EMPTY_SIDES = (64, 256)
"""Smallest and largest side of a crop of background."""
_MARGIN = 10


@dataclass(frozen=True)
class Change:
    """A change of the content of an image.

    Parameters
    ----------
    kind
        Inverted, dimmed, blurred or noisy.
    strength
        In words.
    apply
        Maps the pixels (float64, spatial axes last) and a generator to the changed pixels.
    """

    kind: str
    strength: str
    apply: Callable[[Array, np.random.Generator], Array]


def _blur(sigma: float) -> Callable[[Array, np.random.Generator], Array]:
    def apply(values: Array, _: np.random.Generator) -> Array:
        from scipy import ndimage

        # Channels come first and are not mixed.
        return np.asarray(ndimage.gaussian_filter(values, sigma, axes=(-2, -1)))

    return apply


def _noise(share: float) -> Callable[[Array, np.random.Generator], Array]:
    def apply(values: Array, generator: np.random.Generator) -> Array:
        low, high = np.percentile(values, (1.0, 99.8))
        return values + generator.normal(0.0, share * (high - low), values.shape)

    return apply


CHANGES = (
    Change("inverted", "bright and dark exchanged", lambda v, _: v.max() + v.min() - v),
    Change("dimmed", "values halved", lambda v, _: v / 2),
    Change("dimmed", "an eighth of the values", lambda v, _: v / 8),
    Change("blurred", "Gaussian, sigma 1 pixel", _blur(1.0)),
    Change("blurred", "Gaussian, sigma 2 pixels", _blur(2.0)),
    Change("noisy", "Gaussian, sd 5 % of the 1 to 99.8 percentile range", _noise(0.05)),
    Change("noisy", "Gaussian, sd 10 % of that range", _noise(0.1)),
    Change("noisy", "Gaussian, sd 20 % of that range", _noise(0.2)),
)


def changed(sample: Sample, change: Change) -> Sample:
    """Return a sample with changed pixels, stored as before (rounded and clipped to the same dtype)."""
    generator = np.random.default_rng(len(sample.labels))
    array = change.apply(sample.image.array.astype(np.float64), generator)
    return replace(sample, image=replace(sample.image, array=stored_as(array, sample.image.array.dtype)))


def rescaled(sample: Sample, factor: float) -> Sample:
    """Return a sample resampled by a factor; its truth too, to the nearest pixel."""
    sides = sample.labels.shape
    kept = [min(n, int(MAX_SIDE / factor)) for n in sides]
    window = [slice((n - k) // 2, (n - k) // 2 + k) for n, k in zip(sides, kept, strict=True)]
    image, labels = sample.image.array[_spatial(window)], sample.labels[tuple(window)]
    if factor != 1.0:
        factors = (factor,) * len(sides)
        image = stored_as(resample(image, factors), image.dtype)
        labels = resample(labels, factors, order=0)
    return replace(sample, image=replace(sample.image, array=image, spacing=None), labels=labels)


def empty_crops(samples: Sequence[Sample]) -> Iterator[tuple[str, Image]]:
    """Yield the largest square without any labelled object of each image, with the image's modality.

    Squares stay 10 pixels away from objects, out of their halos; images where no 64 pixels fit are left out.
    """
    from scipy import ndimage

    for sample in samples:
        occupied = ndimage.binary_dilation(sample.labels > 0, iterations=_MARGIN)
        # Chessboard distance to the nearest object or border: half the side of the free square around it.
        half = ndimage.distance_transform_cdt(~np.pad(occupied, 1, constant_values=True))
        centre = np.unravel_index(int(half.argmax()), half.shape)
        reach = min(int(half[centre]) - 1, EMPTY_SIDES[1] // 2)
        if 2 * reach < EMPTY_SIDES[0]:
            continue
        window = [slice(int(c) - 1 - reach, int(c) - 1 + reach) for c in centre]
        crop = sample.image.array[_spatial(window)]
        yield sample.modality, replace(sample.image, array=crop, name=f"{sample.id} (background)")


def made_up_backgrounds(side: int = 256) -> Iterator[Image]:
    """Yield 8-bit images without objects: constant, noise of several kinds, uneven light."""
    generator = np.random.default_rng(0)
    shape = (side, side)
    ramp = np.add.outer(np.linspace(0, 60, side), np.linspace(0, 40, side))
    pictures = {
        "black": np.zeros(shape),
        "gray": np.full(shape, 128.0),
        "white": np.full(shape, 255.0),
        "Gaussian noise, sd 3": generator.normal(20, 3, shape),
        "Gaussian noise, sd 30": generator.normal(128, 30, shape),
        "Poisson noise, mean 2": generator.poisson(2, shape).astype(np.float64),
        "uniform noise": generator.uniform(0, 255, shape),
        "uneven light, noise of sd 2": 60 + ramp + generator.normal(0, 2, shape),
    }
    for name, values in pictures.items():
        yield Image(stored_as(values, np.dtype(np.uint8)), "YX", name=name)


def stored_as(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return values rounded and clipped to a dtype."""
    if dtype.kind == "f":
        return values.astype(dtype)
    limits = np.iinfo(dtype)
    return np.rint(values).clip(limits.min, limits.max).astype(dtype)


def _spatial(window: Sequence[slice]) -> tuple[Any, ...]:
    """Return an index for the last axes."""
    return (..., *window)
