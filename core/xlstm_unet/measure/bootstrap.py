"""How certain a mean over images or objects is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Interval:
    """A mean and the interval it lies in."""

    mean: float
    low: float
    high: float


def bootstrap_interval(
    values: ArrayLike,
    baseline: ArrayLike | None = None,
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap of a mean (Efron 1979), or of a mean paired difference.

    Parameters
    ----------
    values
        One number an image or object.
    baseline
        Scores of the same images by something else: the interval is that of ``values - baseline``, image by
        image.
    level
        Share of bootstrap means inside the interval.
    resamples
        Number of bootstrap means.
    seed
        The same seed gives the same interval.

    Raises
    ------
    ValueError
        If there are no values, some are not finite, or ``baseline`` has another length.

    Examples
    --------
    >>> bootstrap_interval([0.5, 0.5, 0.5])
    Interval(mean=0.5, low=0.5, high=0.5)
    """
    sample = np.asarray(values, dtype=np.float64)
    if baseline is not None:
        other = np.asarray(baseline, dtype=np.float64)
        if other.shape != sample.shape:
            raise ValueError(f"{sample.size} values with {other.size} baseline values, expected pairs")
        sample = sample - other
    if sample.ndim != 1 or not sample.size or not np.isfinite(sample).all():
        raise ValueError(f"values of shape {sample.shape}, expected a list of finite numbers")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level {level} and {resamples} resamples, expected 0 to 1 and at least 1")
    generator = np.random.default_rng(seed)
    block = max(1, 2**20 // sample.size)
    means = np.concatenate(
        [
            sample[generator.integers(sample.size, size=(min(block, resamples - start), sample.size))].mean(
                axis=1
            )
            for start in range(0, resamples, block)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high))
