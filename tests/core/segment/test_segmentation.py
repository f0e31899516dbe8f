"""Labels from kept maps."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError
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
