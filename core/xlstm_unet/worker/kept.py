"""Segmentations whose maps stay in the worker, so that thresholds can be moved without the network."""

from __future__ import annotations

import dataclasses
import secrets
import threading
from collections import OrderedDict
from typing import Any

import numpy as np

from xlstm_unet.worker.errors import HandleError

MAX_KEPT = 4096
MAX_KEPT_BYTES = 2 * 2**30


class KeptResults:
    """The newest results, by handle, bounded in number and in bytes; safe to use from several threads.

    Parameters
    ----------
    max_count, max_bytes
        What may be kept; the result that was not used for the longest time goes first.
    """

    def __init__(self, max_count: int = MAX_KEPT, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_count, self._max_bytes = max_count, max_bytes
        self._results: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, result: Any) -> str | None:
        """Keep a result and return its handle; None if it alone is larger than what may be kept."""
        size = array_bytes(result)
        if size > self._max_bytes:
            return None
        handle = secrets.token_hex(8)
        with self._lock:
            self._results[handle] = (result, size)
            while len(self._results) > self._max_count or self._bytes() > self._max_bytes:
                self._results.popitem(last=False)
        return handle

    def get(self, handle: str) -> Any:
        """Return a kept result.

        Raises
        ------
        HandleError
            If it was released, made room for others, or belonged to a worker that has ended.
        """
        with self._lock:
            if handle not in self._results:
                raise HandleError(f"No maps are kept under {handle!r}.", "Segment the image again.")
            self._results.move_to_end(handle)
            return self._results[handle][0]

    def release(self, handle: str) -> bool:
        """Forget a result; False if it was not kept."""
        with self._lock:
            return self._results.pop(handle, None) is not None

    def _bytes(self) -> int:
        return sum(size for _, size in self._results.values())


def array_bytes(value: Any) -> int:
    """Return the bytes of all arrays in nested dataclasses, tuples, lists and dicts."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if dataclasses.is_dataclass(value):
        return sum(array_bytes(getattr(value, field.name)) for field in dataclasses.fields(value))
    if isinstance(value, dict):
        return sum(array_bytes(item) for item in value.values())
    if isinstance(value, tuple | list):
        return sum(array_bytes(item) for item in value)
    return 0
