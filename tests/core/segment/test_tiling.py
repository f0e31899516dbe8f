"""Tiles and their blending."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from xlstm_unet.errors import CancelledError
from xlstm_unet.segment.tiling import TileGrid, blend_tiles, blending_weights

GRIDS = [
    ((37, 41), (16, 16), (4, 4)),
    ((16, 100), (16, 32), (8, 16)),
    ((5, 7), (16, 16), (4, 4)),
    ((1, 1), (8, 8), (2, 2)),
    ((40, 9), (16, 16), (0, 0)),
    ((11, 30, 23), (8, 16, 16), (4, 8, 8)),
]


@pytest.mark.parametrize(("shape", "tile", "overlap"), GRIDS, ids=str)
def test_tiles_cover_every_voxel_with_the_overlap(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: tuple[int, ...]
) -> None:
    grid = TileGrid.cover(shape, tile, overlap)
    count = np.zeros(grid.padded, int)
    corners = [corner for _, row in grid.rows() for corner in row]
    for corner in corners:
        count[tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))] += 1
    assert len(corners) == len(grid)
    assert count.min() >= 1
    for size, length, shared, starts in zip(shape, tile, overlap, grid.starts, strict=True):
        assert starts[0] == 0
        assert starts[-1] == max(size - length, 0)
        assert all(b - a <= length - shared for a, b in pairwise(starts))


@pytest.mark.parametrize(("shape", "tile", "overlap"), GRIDS, ids=str)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_identity_network_gives_the_image_back(
    shape: tuple[int, ...], tile: tuple[int, ...], overlap: tuple[int, ...], batch: int
) -> None:
    array = np.random.default_rng(0).random((2, *shape), dtype=np.float32)
    seen = []

    def identity(tiles: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(tiles.shape))
        return tiles

    grid = TileGrid.cover(shape, tile, overlap)
    steps = []
    maps = blend_tiles(array, grid, identity, 2, batch=batch, on_progress=steps.append)
    # Half precision keeps eleven bits: equal but for the last of them.
    np.testing.assert_allclose(maps, array, rtol=2**-11, atol=1e-7)
    assert maps.dtype == np.float16
    assert all(size[1:] == (2, *tile) and size[0] <= batch for size in seen)
    assert (steps[-1].done, steps[-1].total) == (len(grid), len(grid))


def test_small_images_are_mirrored_to_the_networks_multiple_only() -> None:
    grid = TileGrid.cover((20, 100), (64, 64), (16, 16), multiple=(16, 16))
    assert grid.tile == (32, 64)
    array = np.arange(2000, dtype=np.float32).reshape(1, 20, 100)
    tile = grid.read(array, (0, 0))
    assert tile.shape == (1, 32, 64)
    np.testing.assert_array_equal(tile[0, 20], array[0, 18, :64])


def test_tiles_shrink_where_smaller_ones_cover_as_well() -> None:
    grid = TileGrid.cover((1040, 300), (1024, 1024), (176, 176), multiple=(16, 16), least=(256, 256))
    assert grid.tile == (608, 304)
    assert len(grid) == 2
    assert TileGrid.cover((270, 270), (256, 256), (64, 64), multiple=(16, 16), least=(256, 256)).tile == (
        256,
        256,
    )


def test_blending_weights_are_highest_in_the_middle_and_never_zero() -> None:
    weights = blending_weights((33, 65))
    assert weights.max() == weights[16, 32] == 1
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=1e-6)


def test_seams_are_smooth() -> None:
    """A network that is off by a constant in each tile gives a map without steps."""
    offsets = iter(np.linspace(0, 1, 100))

    def biased(tiles: torch.Tensor) -> torch.Tensor:
        return torch.full_like(tiles, float(next(offsets)))

    grid = TileGrid.cover((200,) * 2, (64, 64), (32, 32))
    maps = blend_tiles(np.zeros((1, 200, 200), np.float32), grid, biased, 1).astype(np.float32)
    last = float(np.linspace(0, 1, 100)[len(grid) - 1])
    assert maps.max() <= last + 1e-3
    assert np.abs(np.diff(maps[0], axis=1)).max() < last / 20


def test_cancelled_before_the_next_batch() -> None:
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    runs = []
    grid = TileGrid.cover((64, 64), (16, 16), (4, 4))
    with pytest.raises(CancelledError):
        blend_tiles(np.zeros((1, 64, 64), np.float32), grid, lambda x: runs.append(1) or x, 1, cancel=cancel)
    assert len(runs) == 2
