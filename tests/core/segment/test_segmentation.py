"""Labels from kept maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError
from xlstm_unet.learn.targets import instance_targets
from xlstm_unet.nets import Network
from xlstm_unet.segment import Segmenter
from xlstm_unet.segment.segmentation import decode_maps, number_on
from xlstm_unet.spec import Decoding, Label, ModelSpec

MakeSpec = Callable[..., ModelSpec]


def test_classes_are_the_most_probable(make_spec: MakeSpec) -> None:
    spec = make_spec(task="classes", labels=tuple(Label(value=n, name=str(n)) for n in (1, 2, 3)))
    maps = np.random.default_rng(0).random((4, 3000, 700)).astype(np.float16)
    labels = decode_maps(maps, spec, Decoding())
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, maps.argmax(0))
    with pytest.raises(CancelledError):
        decode_maps(maps, spec, Decoding(), cancel=lambda: True)


def test_numbers_go_on_over_slices_of_objects_but_not_of_classes(make_spec: MakeSpec) -> None:
    labels = np.array([[0, 1], [2, 0]], np.int32)
    assert number_on(labels, 0, make_spec()) == 2
    assert labels.tolist() == [[0, 1], [2, 0]]
    assert number_on(labels, 5, make_spec()) == 7
    assert labels.tolist() == [[0, 6], [7, 0]]
    assert number_on(labels, 3, make_spec(task="classes")) == 3
    assert labels.tolist() == [[0, 6], [7, 0]]


def test_objects_are_dropped_where_the_others_are_far_surer(make_spec: MakeSpec) -> None:
    maps = np.zeros((2, 30, 60), np.float16)
    maps[:, 5:25, 5:15] = 0.6
    maps[:, 5:25, 25:35] = 0.9
    maps[:, 5:25, 45:55] = 0.9
    labels = decode_maps(maps, make_spec(), Decoding())
    assert labels.max() == 2
    assert labels[10, 10] == 0
    # A model that is unsure of everything keeps what it has.
    assert decode_maps(np.minimum(maps, np.float16(0.6)), make_spec(), Decoding()).max() == 3


def test_the_diameter_decides_how_much_ripples_matter(
    make_spec: MakeSpec, make_network: Callable[[ModelSpec], Network]
) -> None:
    spec = make_spec(object_diameter=14.0, decoding=Decoding(threshold=0.1, seed_height=0.02, min_size=0))
    noise = np.random.default_rng(0).random((60, 70), dtype=np.float32)
    segmenter = Segmenter(spec, make_network(spec), device="cpu")
    result = segmenter(noise, diameter=14, keep_maps=True)
    assert result.labels.max() > 10
    np.testing.assert_array_equal(result.decode(), result.labels)
    assert replace(result, diameter=60.0).decode().max() < result.labels.max()

    grid = np.indices((90, 90))
    classes, distance = instance_targets((np.square(grid - 45).sum(0) <= 30**2).astype(np.int32))
    ripples = 0.5 * np.sin(grid[0]) * np.sin(grid[1])
    maps = np.stack([classes > 0, np.clip(distance + ripples, 0, 1)]).astype(np.float16)
    assert decode_maps(maps, make_spec(), Decoding()).max() > 1
    assert decode_maps(maps, make_spec(), Decoding(), diameter=60).max() == 1
