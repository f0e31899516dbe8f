"""The network on a device, run over tiles: from a prepared image to maps of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, combinations
from math import prod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_unet.errors import ModelError
from xlstm_unet.nets import Network, best_device, inference_context, prepare
from xlstm_unet.progress import Cancel, OnProgress, check_cancelled
from xlstm_unet.segment.memory import MemoryLadder, Setting
from xlstm_unet.segment.nnunet_tiles import half_overlapping, importance
from xlstm_unet.segment.tiling import Size, TileGrid, blend_tiles
from xlstm_unet.spec import ModelSpec

_OVERLAP = {2: 0.25, 3: 0.5}
"""Share of a tile that neighbouring tiles have in common, at least."""
_MOST_OVERLAP_2D = 96
"""Pixels beyond which more overlap shows no more than it costs."""

_LARGEST_2D = 1024
_LARGEST_VALUES = 24 * 1024 * 1024
"""Values of the finest feature map of a tile that the default tile of a 2D model stays within."""
_SMALLEST = {2: 128, 3: 32}
_MAPS_ALIVE = 12
"""Finest feature maps that a tile takes at its peak, roughly."""
_MAX_BATCH = 8


class Predictor:
    """A network that maps prepared images of any size to probabilities.

    Parameters
    ----------
    spec
        The model.
    network
        Its network, in float32; it is copied.
    device
        As for `xlstm_unet.nets.best_device`.
    tile
        Size of a tile in voxels, one number for all axes or one an axis; None for the default: twice or
        four times the patch size in 2D where that fits about a gigabyte, the patch size in 3D and for the
        pipeline ``nnunet``.

    Raises
    ------
    ModelError
        If the tile has another number of axes, or is not the patch size of a network that takes only that.
    DeviceError
        If there is no such device.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        *,
        device: str = "auto",
        tile: int | Sequence[int] | None = None,
    ) -> None:
        self.spec = spec
        self._network = network
        self._multiple = network.total_stride
        first = best_device(device)
        size = _tile_size(network, tile)
        smallest = network.fixed_size or tuple(
            min(t, -(-_SMALLEST[spec.dimension] // m) * m) for t, m in zip(size, self._multiple, strict=True)
        )
        self.memory = MemoryLadder(Setting(first, size, _batch_size(network, first, size)), smallest)
        self._copies: dict[torch.device, Network] = {}
        self._on(first)

    @property
    def outputs(self) -> int:
        """Number of maps: foreground and distance for instances, or a probability for each class."""
        return 2 if self.spec.task == "instances" else self.spec.output_channels

    @property
    def device(self) -> torch.device:
        """Where the network runs at present."""
        return self.memory.setting.device

    @property
    def tile(self) -> Size:
        """Size of a tile at present."""
        return self.memory.setting.tile

    def __call__(
        self,
        array: NDArray[np.float32],
        *,
        mirror: bool = False,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> NDArray[np.float16]:
        """Return the maps of an image at the model's scale.

        Parameters
        ----------
        array
            (C, *spatial), float32, normalised; may be a view with repeated channels.
        mirror
            Average over the mirrored copies of every tile, along the model's ``mirror_axes``.
        on_progress, cancel
            Called for every batch of tiles; ``cancel`` also between the layers of the network.

        Returns
        -------
        maps
            (outputs, *spatial), float16. Instances: probability of belonging to an object, and distance
            (0 to 1); classes: probabilities.

        Raises
        ------
        DeviceError
            If memory does not suffice.
        CancelledError
            If ``cancel`` says so.
        """

        def lay(network: Network, setting: Setting) -> TileGrid:
            return TileGrid.cover(
                array.shape[1:],
                setting.tile,
                _overlap(setting.tile),
                multiple=None if network.fixed_size else self._multiple,
                least=self.spec.patch_size,
            )

        return self._blended(array, lay, self._probabilities, self.outputs, None, mirror, on_progress, cancel)

    def logits(
        self,
        array: NDArray[np.float32],
        *,
        mirror: bool = False,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> NDArray[np.float16]:
        """Return the logits of an image at the model's scale, from tiles as nnU-Net lays them.

        Parameters
        ----------
        array
            (C, *spatial), float32, normalised, at least as large as `tile` along each axis.
        mirror, on_progress, cancel
            As in a call.

        Returns
        -------
        logits
            (output channels, *spatial), float16.

        Raises
        ------
        DeviceError
            If memory does not suffice.
        CancelledError
            If ``cancel`` says so.
        """

        def lay(_: Network, setting: Setting) -> TileGrid:
            return half_overlapping(array.shape[1:], setting.tile)

        def same(logits: Tensor) -> Tensor:
            return logits

        outputs = self.spec.output_channels
        return self._blended(array, lay, same, outputs, importance, mirror, on_progress, cancel)

    def _blended(
        self,
        array: NDArray[np.float32],
        lay: Callable[[Network, Setting], TileGrid],
        activate: Callable[[Tensor], Tensor],
        outputs: int,
        weights: Callable[[Size], NDArray[np.float32]] | None,
        mirror: bool,
        on_progress: OnProgress | None,
        cancel: Cancel | None,
    ) -> NDArray[np.float16]:
        """Run the network over the tiles that ``lay`` gives, with as much memory as there is."""

        def work(setting: Setting) -> NDArray[np.float16]:
            network = self._on(setting.device)
            grid = lay(network, setting)
            with inference_context(setting.device), _cancellable(network, cancel):
                return blend_tiles(
                    array,
                    grid,
                    self._predicting(network, activate, mirror=mirror),
                    outputs,
                    weights=None if weights is None else weights(grid.tile),
                    batch=setting.batch,
                    device=setting.device,
                    on_progress=on_progress,
                    cancel=cancel,
                )

        return self.memory.run(work)

    def _on(self, device: torch.device) -> Network:
        """Return the network on a device; only the latest device keeps a copy."""
        if device not in self._copies:
            self._copies.clear()
            self._copies[device] = prepare(self._network, device)
        return self._copies[device]

    def _probabilities(self, logits: Tensor) -> Tensor:
        """Map logits (B, output channels, *tile) to the maps."""
        if self.spec.regions:
            return torch.sigmoid(logits)
        if self.spec.task == "classes":
            return torch.softmax(logits, dim=1)
        # P(interior) + P(boundary) = 1 - P(background), without the softmax of all three.
        objects = torch.logsumexp(logits[:, 1:3], dim=1) - logits[:, 0]
        return torch.stack((torch.sigmoid(objects), logits[:, 3].clamp(0, 1)), dim=1)

    def _predicting(
        self, network: Network, activate: Callable[[Tensor], Tensor], *, mirror: bool
    ) -> Callable[[Tensor], Tensor]:
        """Return a function from tiles to maps, averaged over mirrored copies if asked for."""
        axes = range(self.spec.dimension) if self.spec.mirror_axes is None else self.spec.mirror_axes
        mirrored = [2 + axis for axis in axes] if mirror else []
        flips = list(chain.from_iterable(combinations(mirrored, n) for n in range(len(mirrored) + 1)))

        def predict(tiles: Tensor) -> Tensor:
            total = activate(network(tiles))
            for flip in flips[1:]:
                total = total + activate(network(tiles.flip(flip))).flip(flip)
            return total / len(flips)

        return predict


@contextmanager
def _cancellable(network: Network, cancel: Cancel | None) -> Iterator[None]:
    """Ask ``cancel`` before every layer: one tile of a large network can take longer than a user waits."""
    if cancel is None:
        yield
        return

    def ask(*_: Any) -> None:
        check_cancelled(cancel)

    handles = [module.register_forward_pre_hook(ask) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tile_size(network: Network, tile: int | Sequence[int] | None) -> Size:
    spec, multiple = network.spec, network.total_stride
    if tile is None:
        size = network.fixed_size or _default_tile(network)
    else:
        size = (tile,) * spec.dimension if isinstance(tile, int) else tuple(tile)
    if len(size) != spec.dimension or min(size) < 1:
        raise ModelError(f"tile is {size}, expected {spec.dimension} positive sizes for model {spec.name}.")
    if network.fixed_size:
        if size != network.fixed_size:
            raise ModelError(
                f"tile is {size}, but model {spec.name} takes only {network.fixed_size}.",
                "Leave the tile size out.",
            )
        return size
    return tuple(-(-n // m) * m for n, m in zip(size, multiple, strict=True))


def _default_tile(network: Network) -> Size:
    spec = network.spec
    size: Size = tuple(spec.patch_size)
    while spec.dimension == 2 and spec.pipeline == "own":
        larger = tuple(2 * n for n in size)
        if max(larger) > _LARGEST_2D or prod(larger) * spec.network.features[0] > _LARGEST_VALUES:
            break
        size = larger
    return size


def _overlap(tile: Size) -> Size:
    if len(tile) == 2:
        return tuple(min(int(_OVERLAP[2] * n), _MOST_OVERLAP_2D) for n in tile)
    return tuple(int(_OVERLAP[3] * n) for n in tile)


def _batch_size(network: Network, device: torch.device, tile: Size) -> int:
    """Tiles that fit half of a GPU's free memory, roughly; one elsewhere, where more gain nothing."""
    if device.type != "cuda":
        return 1
    free, _ = torch.cuda.mem_get_info(device)
    tile_bytes = prod(tile) * network.spec.network.features[0] * 4 * _MAPS_ALIVE
    return max(1, min(_MAX_BATCH, free // (2 * tile_bytes)))
