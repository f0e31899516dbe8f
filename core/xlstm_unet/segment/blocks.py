"""Regions of one block of an image: basins of the distance map, pieces of background, and who touches whom.

Everything here looks one voxel beyond the block, so that the blocks together say exactly what one pass over
the whole image would say (see `xlstm_unet.segment.instances`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

_TRUNCATE = 4.0
"""Standard deviations that the Gaussian reaches."""
_OUTSIDE = np.float32(-1.0)

Slices = tuple[slice, ...]


@dataclass(frozen=True)
class Contacts:
    """Pairs of regions that touch, each pair once, with the height of the pass between them.

    Parameters
    ----------
    first, second
        Region numbers, int64.
    height
        Largest over the touching voxel pairs of the smaller of their two heights, float32.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    height: NDArray[np.float32]


@dataclass(frozen=True)
class BlockRegions:
    """What one block contributes.

    Parameters
    ----------
    peaks
        Height of the top of each basin, float32.
    tops
        Flat index of that top in the whole image, int64.
    leaves
        Whether the top lies beyond the block: the basin goes on in the block that holds it.
    sizes
        Voxels of each basin in this block.
    masses
        Sum of the foreground probability over these voxels, float64.
    n_background
        Number of pieces of background.
    passes
        Contacts between basins.
    shores
        Contacts between basins (first) and pieces of background (second, numbered from 1); height is 0.
    """

    peaks: NDArray[np.float32]
    tops: NDArray[np.int64]
    leaves: NDArray[np.bool_]
    sizes: NDArray[np.int64]
    masses: NDArray[np.float64]
    n_background: int
    passes: Contacts
    shores: Contacts


def split(shape: tuple[int, ...], size: int) -> Iterator[Slices]:
    """Cut an array of ``shape`` into blocks of at most ``size`` voxels along each axis."""
    starts = [range(0, extent, size) for extent in shape]
    for corner in product(*starts):
        yield tuple(
            slice(start, min(start + size, extent)) for start, extent in zip(corner, shape, strict=True)
        )


def strongest(first: NDArray[np.int64], second: NDArray[np.int64], height: NDArray[np.float32]) -> Contacts:
    """Keep each pair once, whichever way round it is given, with its greatest height."""
    low, high = np.minimum(first, second), np.maximum(first, second)
    order = np.lexsort((height, high, low))
    low, high, height = low[order], high[order], height[order]
    last = np.ones(low.size, dtype=bool)
    last[:-1] = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
    return Contacts(low[last], high[last], height[last])


def find_regions(
    foreground: NDArray[np.floating],
    distance: NDArray[np.floating],
    core: Slices,
    threshold: float,
    smoothing: float,
) -> tuple[NDArray[np.int32], BlockRegions]:
    """Divide the voxels of ``core`` into basins of the distance map and pieces of background.

    Every foreground voxel points at its highest neighbour (the last one in raster order among equals);
    following the pointers leads to the top of its basin. Voxels just outside the core stand for the
    basin that they belong to in their own block.

    Parameters
    ----------
    foreground, distance
        Whole maps, any float dtype; only the core and a few voxels around it are read.
    core
        The block.
    threshold
        Foreground probability above which a voxel belongs to an object.
    smoothing
        Standard deviation, in voxels, of the Gaussian that takes ripples off the distance map.

    Returns
    -------
    labels
        int32, shape of the block: basins of the foreground from 1, pieces of background from -1 downwards.
    regions
        What is known of them.
    """
    shape = foreground.shape
    outer = _grow(core, 1, shape)
    inside = _within(core, outer)
    probability = foreground[outer].astype(np.float32)
    height = _heights(probability > threshold, distance, outer, smoothing)
    mask = height[(slice(1, -1),) * len(shape)] >= 0
    voxels = np.flatnonzero(height >= 0)
    rank = np.full(height.size, -1, dtype=np.int32)
    rank[voxels] = np.arange(voxels.size, dtype=np.int32)
    steps = _neighbour_steps(height.shape)
    flat = height.reshape(-1)

    in_core = np.zeros(height.shape, dtype=bool)
    in_core[tuple(slice(s.start + 1, s.stop + 1) for s in inside)] = True
    own = in_core.reshape(-1)[voxels]
    parent = np.arange(voxels.size, dtype=np.int32)
    parent[own] = rank[_highest_neighbour(flat, voxels[own], steps)]
    basin, tops = _follow(parent)

    regions = np.zeros(height.size, dtype=np.int32)
    regions[voxels] = basin
    cropped = regions.reshape(height.shape)[(slice(1, -1),) * len(shape)][inside]
    pieces, n_background = ndimage.label(~mask[inside])
    labels = cropped - pieces.astype(np.int32, copy=False)
    position = np.unravel_index(voxels[tops], height.shape)
    in_image = [p - 1 + s.start for p, s in zip(position, outer, strict=True)]
    return labels, BlockRegions(
        peaks=flat[voxels[tops]],
        tops=np.ravel_multi_index(in_image, shape).astype(np.int64),
        leaves=~own[tops],
        sizes=np.bincount(basin[own], minlength=tops.size + 1)[1:],
        masses=np.bincount(basin[own], probability[mask][own], tops.size + 1)[1:].astype(np.float64),
        n_background=int(n_background),
        passes=_passes(flat, voxels, own, rank, basin, steps),
        shores=_shores(labels, _open_pieces(labels, core, shape)),
    )


def _grow(core: Slices, margin: int, shape: tuple[int, ...]) -> Slices:
    return tuple(
        slice(max(s.start - margin, 0), min(s.stop + margin, extent))
        for s, extent in zip(core, shape, strict=True)
    )


def _within(inner: Slices, outer: Slices) -> Slices:
    return tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))


def _heights(
    mask: NDArray[np.bool_], distance: NDArray[np.floating], outer: Slices, smoothing: float
) -> NDArray[np.float32]:
    """Return the smoothed distance of ``outer`` where ``mask``, `_OUTSIDE` elsewhere and in a rim around."""
    around = _grow(outer, int(_TRUNCATE * smoothing + 0.5), distance.shape)
    smooth = ndimage.gaussian_filter(
        distance[around].astype(np.float32), smoothing, mode="nearest", truncate=_TRUNCATE
    )
    height = np.full([extent + 2 for extent in mask.shape], _OUTSIDE)
    centre = height[(slice(1, -1),) * mask.ndim]
    np.copyto(centre, np.clip(smooth[_within(outer, around)], 0, 1), where=mask)
    return height


def _neighbour_steps(shape: tuple[int, ...]) -> list[int]:
    """Flat index steps to all neighbours and to the voxel itself, ascending."""
    strides = np.cumprod((1, *shape[:0:-1]))[::-1]
    return sorted(
        int(sum(s * o for s, o in zip(strides, offset, strict=True)))
        for offset in product((-1, 0, 1), repeat=len(shape))
    )


def _highest_neighbour(
    flat: NDArray[np.float32], voxels: NDArray[np.int64], steps: list[int]
) -> NDArray[np.int64]:
    best = np.full(voxels.size, _OUTSIDE)
    step = np.zeros(voxels.size, dtype=np.int64)
    for candidate in steps:
        height = flat[voxels + candidate]
        better = height >= best
        np.copyto(best, height, where=better)
        np.copyto(step, candidate, where=better)
    return voxels + step


def _follow(parent: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Follow pointers to their ends; return a number from 1 for each entry, and the ends."""
    while True:
        further = parent[parent]
        if np.array_equal(further, parent):
            break
        parent = further
    end = parent == np.arange(parent.size, dtype=np.int32)
    return np.cumsum(end, dtype=np.int32)[parent], np.flatnonzero(end)


def _passes(
    flat: NDArray[np.float32],
    voxels: NDArray[np.int64],
    own: NDArray[np.bool_],
    rank: NDArray[np.int32],
    basin: NDArray[np.int32],
    steps: list[int],
) -> Contacts:
    first, second, height = [], [], []
    for step in steps[len(steps) // 2 + 1 :]:
        other = rank[voxels + step]
        here = np.flatnonzero((other >= 0) & (basin != basin[other]))
        there = other[here]
        keep = own[here] | own[there]
        here, there = here[keep], there[keep]
        first.append(basin[here])
        second.append(basin[there])
        height.append(np.minimum(flat[voxels[here]], flat[voxels[there]]))
    return strongest(
        np.concatenate(first).astype(np.int64),
        np.concatenate(second).astype(np.int64),
        np.concatenate(height),
    )


def _open_pieces(labels: NDArray[np.int32], core: Slices, shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Labels on those faces of the block that are faces of the image: they cannot be holes."""
    faces = [
        labels.take(index, axis=axis).reshape(-1)
        for axis, (part, extent) in enumerate(zip(core, shape, strict=True))
        for index, reached in ((0, part.start == 0), (-1, part.stop == extent))
        if reached
    ]
    return np.unique(np.concatenate(faces)) if faces else np.zeros(0, dtype=np.int32)


def _shores(labels: NDArray[np.int32], not_holes: NDArray[np.int32]) -> Contacts:
    first, second = [], []
    candidate = np.zeros(1 - min(int(labels.min()), 0), dtype=bool)
    candidate[1:] = True
    candidate[-not_holes[not_holes < 0]] = False
    for axis in range(labels.ndim):
        low = labels[(slice(None),) * axis + (slice(None, -1),)]
        high = labels[(slice(None),) * axis + (slice(1, None),)]
        crossing = np.flatnonzero((low < 0) != (high < 0))
        one, other = low.reshape(-1)[crossing], high.reshape(-1)[crossing]
        basin, piece = np.maximum(one, other), -np.minimum(one, other)
        keep = candidate[piece]
        first.append(basin[keep])
        second.append(piece[keep])
    pairs = np.unique(np.stack([np.concatenate(first), np.concatenate(second)]).astype(np.int64), axis=1)
    return Contacts(pairs[0], pairs[1], np.zeros(pairs.shape[1], dtype=np.float32))
