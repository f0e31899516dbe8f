"""Cutting an image into overlapping tiles and blending what the network says about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled

STAGE = "network"

_SIGMA = 1 / 8
_LEAST_WEIGHT = 1e-4

Size = tuple[int, ...]


@dataclass(frozen=True)
class TileGrid:
    """Equal tiles that cover an array, evenly spread along each axis.

    ::

        axis of 10 voxels, tiles of 4, overlap at least 1       axis of 3 voxels, tiles of 4

        voxel   0 1 2 3 4 5 6 7 8 9                             voxel   0 1 2 (1)
        tile 0  [-----]                                         tile 0  [-----]
        tile 1        [-----]                                   the tile reaches beyond the array, which
        tile 2              [-----]                             goes on there as its mirror image
        start   0     3     6

    Parameters
    ----------
    shape
        Size of the array.
    tile
        Size of every tile.
    starts
        First voxel of the tiles, one tuple an axis.
    """

    shape: Size
    tile: Size
    starts: tuple[Size, ...]

    @classmethod
    def cover(
        cls,
        shape: Size,
        tile: Size,
        overlap: Size,
        *,
        multiple: Size | None = None,
        least: Size | None = None,
    ) -> TileGrid:
        """Lay tiles over an array.

        Parameters
        ----------
        shape
            Size of the array.
        tile
            Size of the tiles.
        overlap
            Voxels that a tile shares with the next along each axis, at least.
        multiple
            Tiles shrink to multiples of this where smaller ones cover the array too; None keeps their size.
        least
            Size below which they shrink only where the array itself is smaller.
        """
        if multiple is not None:
            sizes = zip(shape, tile, overlap, multiple, least or tile, strict=True)
            tile = tuple(_shrunk(*axis) for axis in sizes)
        return cls(shape, tile, tuple(_spread(*axis) for axis in zip(shape, tile, overlap, strict=True)))

    def __len__(self) -> int:
        """Return the number of tiles."""
        return prod(len(axis) for axis in self.starts)

    @property
    def padded(self) -> Size:
        """Size of the array with the mirrored rim that small ones get."""
        return tuple(max(n, t) for n, t in zip(self.shape, self.tile, strict=True))

    def rows(self) -> Iterator[tuple[int, list[Size]]]:
        """Yield the first voxel of each row along the first axis, and the corners of its tiles."""
        for start in self.starts[0]:
            yield start, [(start, *rest) for rest in product(*self.starts[1:])]

    def read(self, array: NDArray[np.float32], corner: Size) -> NDArray[np.float32]:
        """Return the tile (C, *tile) of an array (C, *shape) at a corner."""
        part = array[
            (
                slice(None),
                *(slice(c, min(c + t, n)) for c, t, n in zip(corner, self.tile, self.shape, strict=True)),
            )
        ]
        missing = [t - n for t, n in zip(self.tile, part.shape[1:], strict=True)]
        if any(missing):
            part = np.pad(part, [(0, 0), *((0, n) for n in missing)], mode="reflect")
        return part


def blending_weights(tile: Size) -> NDArray[np.float32]:
    """Weights of a tile's voxels: 1 at its middle, a Gaussian with an eighth of the tile as sigma."""
    weights = np.ones((), dtype=np.float32)
    for size in tile:
        offset = (np.arange(size) - (size - 1) / 2) / (size * _SIGMA)
        weights = np.multiply.outer(weights, np.exp(-0.5 * offset**2).astype(np.float32))
    return np.maximum(weights, np.float32(_LEAST_WEIGHT))


def blend_tiles(
    array: NDArray[np.float32],
    grid: TileGrid,
    predict: Callable[[Tensor], Tensor],
    outputs: int,
    *,
    weights: NDArray[np.float32] | None = None,
    batch: int = 1,
    device: torch.device | str = "cpu",
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> NDArray[np.float16]:
    """Run a network over all tiles and average what overlaps.

    Memory beyond the result is that of one row of tiles and one batch, however large the array is.

    Parameters
    ----------
    array
        (C, *grid.shape), float32; may be a view with repeated channels.
    grid
        The tiles.
    predict
        Maps (B, C, *tile) on ``device`` to (B, outputs, *tile).
    outputs
        Number of maps.
    weights
        Weight of each voxel of a tile, shape of a tile; `blending_weights` by default.
    batch
        Tiles given to ``predict`` at once.
    device
        Where tiles are put and averages are taken.
    on_progress, cancel
        Called for every batch.

    Returns
    -------
    maps
        (outputs, *grid.shape), float16.
    """
    maps = np.empty((outputs, *grid.shape), dtype=np.float16)
    importance = torch.from_numpy(blending_weights(grid.tile) if weights is None else weights).to(device)
    height, across = grid.tile[0], grid.padded[1:]
    sums = torch.zeros((outputs, height, *across), device=device)
    total = torch.zeros((height, *across), device=device)
    done = 0
    rows = list(grid.rows())
    for (start, corners), following in zip(rows, [*grid.starts[0][1:], None], strict=True):
        for first in range(0, len(corners), batch):
            check_cancelled(cancel)
            some = corners[first : first + batch]
            tiles = np.stack([grid.read(array, corner) for corner in some])
            predicted = predict(torch.from_numpy(tiles).to(device)).float()
            for corner, tile in zip(some, predicted, strict=True):
                place = (
                    slice(None),
                    *(slice(c, c + t) for c, t in zip(corner[1:], grid.tile[1:], strict=True)),
                )
                sums[(slice(None), *place)] += tile * importance
                total[place] += importance
            done += len(some)
            if on_progress is not None:
                on_progress(Progress(STAGE, done, len(grid)))
        finished = height if following is None else following - start
        _emit(maps, start, sums[:, :finished] / total[:finished])
        if following is not None:
            _shift(sums, finished, axis=1)
            _shift(total, finished, axis=0)
    return maps


def _count(size: int, tile: int, overlap: int) -> int:
    return 1 if size <= tile else ceil((size - tile) / max(1, tile - overlap)) + 1


def _shrunk(size: int, tile: int, overlap: int, multiple: int, least: int) -> int:
    """Smallest tile of which as many as before cover an axis."""
    count = _count(size, tile, overlap)
    needed = ceil((size + (count - 1) * overlap) / count / multiple) * multiple
    return min(tile, needed if count == 1 else max(needed, least))


def _spread(size: int, tile: int, overlap: int) -> Size:
    count = _count(size, tile, overlap)
    if count == 1:
        return (0,)
    return tuple(round(i * (size - tile) / (count - 1)) for i in range(count))


def _emit(maps: NDArray[np.float16], start: int, values: Tensor) -> None:
    """Write finished rows, without the mirrored rim."""
    target = maps[:, start : start + values.shape[1]]
    inside: Sequence[Any] = [slice(n) for n in target.shape]
    target[...] = values[tuple(inside)].to(torch.float16).cpu().numpy()


def _shift(tensor: Tensor, rows: int, axis: int) -> None:
    """Move the contents up by ``rows`` and clear what comes in below."""
    kept = tensor.shape[axis] - rows
    tensor.narrow(axis, 0, kept).copy_(tensor.narrow(axis, rows, kept).clone())
    tensor.narrow(axis, kept, rows).zero_()
