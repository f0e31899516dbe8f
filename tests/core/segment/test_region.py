"""Regions and fields of view."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, as_image
from xlstm_unet.segment.region import check_field_of_view, crop, region_slices
from xlstm_unet.spec import FieldOfView, ModelSpec


def test_region_names_every_axis_but_channels() -> None:
    image = as_image(np.zeros((2, 3, 4, 20, 30), np.uint8), axes="TCZYX")
    window = region_slices(image, (slice(1, 3), slice(None, 10), slice(-5, None)))
    assert window == {"T": slice(0, 2), "Z": slice(1, 3), "Y": slice(0, 10), "X": slice(25, 30)}
    inner = crop(image, window)
    assert inner.array.shape == (2, 3, 2, 10, 5)
    assert np.shares_memory(inner.array, image.array)


def test_no_region_is_the_image_itself() -> None:
    image = as_image(np.zeros((20, 30), np.uint8))
    assert crop(image, region_slices(image, None)) is image


@pytest.mark.parametrize(
    ("region", "message"),
    [
        ((slice(0, 5),), "expected 2 slices"),
        ((slice(0, 5, 2), slice(0, 5)), "without steps"),
        ((3, 4), "expected 2 slices"),
        ((slice(25, 30), slice(0, 5)), "holds no pixel"),
        ((slice(5, 5), slice(0, 5)), "holds no pixel"),
    ],
)
def test_unusable_regions_are_refused(region: tuple[object, ...], message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        region_slices(as_image(np.zeros((20, 30), np.uint8)), region)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.fixture
def crop_model(make_spec: Callable[..., ModelSpec]) -> ModelSpec:
    view = FieldOfView(
        description="a crop around one hippocampus",
        extent_mm=(36.0, 50.0, 36.0),
        max_extent_mm=(60.0, 70.0, 60.0),
    )
    return make_spec(3, field_of_view=view, spacing=(1.0, 1.0, 1.0), spacing_unit="mm", task="classes")


def check(image: Image, model: ModelSpec, region: tuple[slice, ...] | None = None) -> None:
    check_field_of_view(image, model, region_slices(image, region))


def test_a_whole_head_is_refused_by_a_model_of_crops(crop_model: ModelSpec) -> None:
    head = Image(np.zeros((90, 120, 90), np.uint8), "ZYX", (2.0, 2.0, 2.0), "mm", name="head")
    with pytest.raises(ImageError, match=r"head: the image shows 180 x 240 x 180 mm.*hippocampus") as caught:
        check(head, crop_model)
    assert "--region" in caught.value.hint
    check(head, crop_model, (slice(0, 20),) * 3)
    with pytest.raises(ImageError, match="the region shows 40 x 160 x 40 mm"):
        check(head, crop_model, (slice(0, 20), slice(10, 90), slice(0, 20)))


def test_the_longest_side_may_lie_along_any_axis(crop_model: ModelSpec) -> None:
    for shape in ((70, 60, 60), (60, 70, 60), (60, 60, 70)):
        check(Image(np.zeros(shape, np.uint8), "ZYX", (1.0, 1.0, 1.0), "mm"), crop_model)
    for shape in ((70, 70, 60), (60, 60, 71)):
        with pytest.raises(ImageError, match="at most 60 x 70 x 60 mm"):
            check(Image(np.zeros(shape, np.uint8), "ZYX", (1.0, 1.0, 1.0), "mm"), crop_model)


def test_extent_counts_in_physical_units(crop_model: ModelSpec) -> None:
    array = np.zeros((90, 120, 90), np.uint8)
    check(Image(array, "ZYX", (500.0, 500.0, 500.0), "µm"), crop_model)
    with pytest.raises(ImageError, match="90 x 120 x 90 mm"):
        check(Image(array, "ZYX"), crop_model)
