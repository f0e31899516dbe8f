from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from xlstm_unet.worker.errors import HandleError
from xlstm_unet.worker.kept import KeptResults, array_bytes


@dataclass
class Result:
    labels: np.ndarray
    maps: tuple[np.ndarray, ...] = ()


def result(kilobytes: int) -> Result:
    return Result(np.zeros(kilobytes * 512, np.uint8), (np.zeros(kilobytes * 512, np.uint8),))


def test_bytes_of_nested_results():
    assert array_bytes(result(3)) == 3 * 1024
    assert array_bytes({"a": [result(1)], "b": "text", "c": None}) == 1024


def test_number_is_bounded_and_what_is_used_stays():
    kept = KeptResults(max_count=2)
    first, second = kept.keep("first"), kept.keep("second")
    kept.get(first)
    third = kept.keep("third")
    assert kept.get(first) == "first"
    assert kept.get(third) == "third"
    with pytest.raises(HandleError, match="Segment the image again"):
        kept.get(second)


def test_bytes_are_bounded():
    kept = KeptResults(max_bytes=10_000)
    handles = [kept.keep(result(4)) for _ in range(4)]
    assert None not in handles
    alive = []
    for handle in handles:
        try:
            alive.append(kept.get(handle))
        except HandleError:
            alive.append(None)
    assert [entry is not None for entry in alive] == [False, False, True, True]
    assert kept.keep(result(11)) is None
    assert kept.get(handles[-1])


def test_release():
    kept = KeptResults()
    handle = kept.keep("it")
    assert kept.release(handle)
    assert not kept.release(handle)
