"""Only what is needed is read, and pieces find their way back into the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from napari_xlstm_unet.channels import ChannelChoice
from napari_xlstm_unet.geometry import PixelSize
from napari_xlstm_unet.task import Task
from xlstm_unet.errors import ImageError

ONE = ChannelChoice("One channel")


class Lazy:
    """An array that records what is read of it."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape = array.shape
        self.read = 0

    def __getitem__(self, key: Any) -> np.ndarray:
        part = self._array[key]
        self.read += part.size
        return part


def _task(array: Any, axes: str, window: tuple[slice, ...] | None = None, **changes: Any) -> Task:
    whole = tuple(slice(0, length) for length in array.shape)
    settings = {"dimension": 2, "channels": ONE, "pixels": PixelSize(None, "pixel"), **changes}
    return Task("image", "id", array, axes, window or whole, **settings)


def test_a_lazy_array_is_read_piece_by_piece() -> None:
    values = np.random.default_rng(0).integers(0, 255, (3, 2, 40, 50)).astype(np.uint16)
    lazy = Lazy(values)
    window = (slice(1, 3), slice(0, 2), slice(5, 15), slice(10, 30))
    task = _task(lazy, "TCYX", window, channels=ChannelChoice("Channel 2", (1,)))
    assert task.label_shape == (2, 10, 20)
    piece = task.read((1,))
    assert lazy.read == 10 * 20
    assert (piece.axes, piece.region) == ("YX", None)
    np.testing.assert_array_equal(piece.array, values[2, 1, 5:15, 10:30])


def test_an_array_in_memory_is_handed_over_with_its_surroundings() -> None:
    values = np.random.default_rng(0).random((4, 30, 20))
    task = _task(values, "ZYX", (slice(1, 3), slice(5, 15), slice(10, 20)))
    piece = task.read((1,))
    assert piece.array.dtype == np.float32
    np.testing.assert_array_equal(piece.array, values[2].astype(np.float32))
    assert piece.region == (slice(5, 15), slice(10, 20))


@pytest.mark.parametrize("axes", ["TZYX", "ZTYX", "XYZT", "YXTZ"])
@pytest.mark.parametrize("dimension", [2, 3])
def test_every_order_of_axes_comes_back(axes: str, dimension: int) -> None:
    sizes = {"T": 2, "Z": 3, "Y": 4, "X": 5}
    values = np.arange(2 * 3 * 4 * 5, dtype=np.int32).reshape([sizes[axis] for axis in axes])
    task = _task(values, axes, dimension=dimension)
    labels = task.empty_labels()
    places = task.by_piece(labels)
    for index in task.pieces():
        piece = task.read(index)
        assert piece.axes == "ZYX"[3 - dimension :]
        places[index] = piece.array
    np.testing.assert_array_equal(labels, values)
    assert task.canonical(labels).shape == (2, 3, 4, 5)


def test_colour_and_brightness() -> None:
    values = np.random.default_rng(0).integers(0, 255, (6, 7, 4), dtype=np.uint8)
    colour = _task(values, "YXC", channels=ChannelChoice("Colour", (0, 1, 2))).read(())
    assert colour.axes == "CYX"
    np.testing.assert_array_equal(colour.array, values[..., :3].transpose(2, 0, 1))
    gray = _task(values, "YXC", channels=ChannelChoice("Brightness", (0, 1, 2), mean=True)).read(())
    assert gray.axes == "YX"
    np.testing.assert_allclose(gray.array, values[..., :3].mean(-1), rtol=1e-6)


@pytest.mark.parametrize("dtype", [">u2", ">f4", "<f8", "i8", "f2", "u1"])
def test_types_become_what_the_worker_takes(dtype: str) -> None:
    piece = _task(np.arange(20).reshape(4, 5).astype(dtype), "YX").read(())
    assert piece.array.dtype.isnative
    assert piece.array.dtype.itemsize <= 4
    np.testing.assert_array_equal(piece.array.ravel(), np.arange(20))


@pytest.mark.parametrize("dtype", [bool, complex, object])
def test_what_is_no_number_is_refused(dtype: type) -> None:
    with pytest.raises(ImageError, match="expected numbers"):
        _task(np.zeros((4, 5), dtype), "YX").read(())


def test_size_limit_names_the_way_out() -> None:
    huge = Lazy(np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (60_000, 60_000), (0, 0)))
    with pytest.raises(ImageError, match=r"14\.4 GB.*limit.*8 GB") as caught:
        _task(huge, "YX").check_size(8)
    assert "Visible area" in caught.value.hint
    _task(huge, "YX", (slice(0, 500), slice(0, 500))).check_size(8)
    assert huge.read == 0
