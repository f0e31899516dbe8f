"""Tiles and their weights as nnU-Net lays them."""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from xlstm_unet.segment.tiling import Size, TileGrid

_SIGMA = 1 / 8
_PEAK = 10.0


def half_overlapping(shape: Size, tile: Size) -> TileGrid:
    """Lay tiles that overlap by half or more, evenly spread; ``shape`` is no smaller than the tile."""
    starts = []
    for size, length in zip(shape, tile, strict=True):
        steps = ceil((size - length) / (length / 2))
        starts.append(tuple(round(i * (size - length) / max(steps, 1)) for i in range(steps + 1)))
    return TileGrid(shape, tile, tuple(starts))


def importance(tile: Size) -> NDArray[np.float32]:
    """Weights of a tile's voxels: a Gaussian around its middle voxel, an eighth of the tile as sigma.

    As in nnU-Net they are rounded to 16 bits, and none is 0: that decides between tiles that meet in corners.
    """
    weights: NDArray[np.float64] = np.ones(())
    for length in tile:
        peak = np.zeros(length)
        peak[length // 2] = 1
        weights = np.multiply.outer(weights, gaussian_filter1d(peak, length * _SIGMA, mode="constant"))
    rounded: NDArray[np.float32] = (weights * (_PEAK / weights.max())).astype(np.float16).astype(np.float32)
    rounded[rounded == 0] = rounded[rounded > 0].min()
    return rounded
