"""Models that stay loaded between requests."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_unet.nets.runtime import best_device
from xlstm_unet.zoo import load
from xlstm_unet.zoo.store import find_model

if TYPE_CHECKING:
    from xlstm_unet.segment import Segmenter

MAX_WARM = 2

_Key = tuple[str, str, tuple[tuple[str, int, int], ...]]


class WarmModels:
    """The models used last; one whose files change is loaded anew."""

    def __init__(self) -> None:
        self._segmenters: OrderedDict[_Key, Segmenter] = OrderedDict()

    def get(self, name: str, device: str) -> Segmenter:
        """Return a model on a device, loading it if need be.

        Raises
        ------
        ModelNotFoundError, BundleError, DeviceError
            See `xlstm_unet.zoo.load`.
        """
        folder = find_model(name).resolve()
        key = (str(folder), str(best_device(device)), _stamp(folder))
        if key not in self._segmenters:
            while len(self._segmenters) >= MAX_WARM:
                self._segmenters.popitem(last=False)
            self._segmenters[key] = load(folder, key[1])
        self._segmenters.move_to_end(key)
        return self._segmenters[key]


def _stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return tuple((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
