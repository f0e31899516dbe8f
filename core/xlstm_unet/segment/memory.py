"""Doing with less when memory runs out: fewer tiles at once, then smaller tiles, then the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch

from xlstm_unet.errors import DeviceError

Size = tuple[int, ...]
Result = TypeVar("Result")

_SAID = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "bad_alloc")


@dataclass(frozen=True)
class Setting:
    """How tiles are run.

    Parameters
    ----------
    device
        Where the network runs.
    tile
        Size of a tile in voxels.
    batch
        Tiles at once.
    """

    device: torch.device
    tile: Size
    batch: int

    def __str__(self) -> str:
        """Return the setting in words."""
        size = " x ".join(str(n) for n in self.tile)
        return f"{self.batch} {'tiles' if self.batch > 1 else 'tile'} of {size} at once on {self.device}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory, the device's or the computer's, was not enough."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error).lower() for text in _SAID)


class MemoryLadder:
    """Runs work at the best setting that memory allows, and stays there.

    Each time memory runs out the batch is halved; at one tile the tile is halved along every axis, down to
    ``smallest``; at the smallest tile the CPU takes over with the tile that the work began with.

    Parameters
    ----------
    start
        Best setting.
    smallest
        Smallest tile; tiles stay multiples of it or are ``start``'s.
    """

    def __init__(self, start: Setting, smallest: Size) -> None:
        self.start = start
        self.smallest = smallest
        self.setting = start

    @property
    def note(self) -> str:
        """What to tell the user: empty at the best setting."""
        if self.setting == self.start:
            return ""
        return f"Memory was short for {self.start}: used {self.setting}."

    def run(self, work: Callable[[Setting], Result]) -> Result:
        """Return ``work(setting)`` for the first setting whose memory suffices.

        Raises
        ------
        DeviceError
            If it does not even suffice for the smallest tile on the CPU.
        """
        while True:
            try:
                return work(self.setting)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).partition("\n")[0] or "MemoryError"
            # The error and the tensors that its traceback holds are gone here.
            if self.setting.device.type == "cuda":
                torch.cuda.empty_cache()
            self.setting = self._less(reason)

    def _less(self, reason: str) -> Setting:
        now = self.setting
        if now.batch > 1:
            return replace(now, batch=now.batch // 2)
        tile = tuple(max(s, t // 2 // s * s) for t, s in zip(now.tile, self.smallest, strict=True))
        if tile != now.tile:
            return replace(now, tile=tile)
        if now.device.type != "cpu":
            return Setting(torch.device("cpu"), self.start.tile, 1)
        raise DeviceError(
            f"Not enough memory for {now} ({reason}).",
            "Close other programs, or segment a region of the image.",
        )
