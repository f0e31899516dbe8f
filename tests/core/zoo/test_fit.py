"""Whether a model fits an image, from the description of the image alone."""

from __future__ import annotations

from typing import Any

import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.spec import FieldOfView, ModelSpec
from xlstm_unet.zoo.fit import check_fit, described_image


def levels(spec: ModelSpec, axes: str, shape: tuple[int, ...], **options: Any) -> set[tuple[str, str]]:
    asked = {name: options.pop(name) for name in ("region", "diameter") if name in options}
    image = described_image(axes, shape, **options)
    return {(found.about, found.level) for found in check_fit(spec, image, **asked)}


@pytest.fixture(scope="module")
def volume(spec: ModelSpec) -> ModelSpec:
    fields = spec.model_dump()
    network = fields["network"] | {"kernels": ((3, 3, 3),) * 2, "strides": ((1, 1, 1), (2, 2, 2))}
    view = FieldOfView(description="a crop", extent_mm=(30, 30, 30), max_extent_mm=(50, 50, 50))
    change = {
        "name": "volume",
        "dimension": 3,
        "task": "classes",
        "input_channels": 1,
        "network": network,
        "patch_size": (32, 32, 32),
        "spacing": (1.0, 1.0, 1.0),
        "spacing_unit": "mm",
        "object_diameter": None,
        "field_of_view": view,
    }
    return ModelSpec.model_validate(fields | change)


def test_what_fits_has_nothing_against_it(spec: ModelSpec, volume: ModelSpec) -> None:
    assert levels(spec, "YXC", (300, 200, 3), diameter=20.0) == set()
    assert levels(spec, "YX", (300, 200), diameter=20.0) == set()
    assert levels(volume, "ZYX", (40, 40, 40), spacing=(1, 1, 1), unit="mm") == set()


def test_dimensions(spec: ModelSpec, volume: ModelSpec) -> None:
    assert ("dimension", "stop") in levels(volume, "YX", (300, 200))
    assert ("dimension", "stop") in levels(volume, "ZYX", (1, 300, 200))
    assert ("dimension", "note") in levels(spec, "ZYX", (30, 300, 200), diameter=20.0)


def test_channels(spec: ModelSpec) -> None:
    assert ("channels", "stop") in levels(spec, "CYX", (2, 300, 200), diameter=20.0)


def test_field_of_view_and_region(volume: ModelSpec) -> None:
    head = {"spacing": (1.0, 1.0, 1.0), "unit": "mm"}
    assert levels(volume, "ZYX", (180, 256, 256), **head) == {("field-of-view", "stop")}
    region = tuple(slice(50, 90) for _ in range(3))
    assert levels(volume, "ZYX", (180, 256, 256), region=region, **head) == set()
    with pytest.raises(ImageError):
        levels(volume, "ZYX", (180, 256, 256), region=(slice(200, 300),) * 3, **head)


def test_scale(spec: ModelSpec, volume: ModelSpec) -> None:
    assert levels(spec, "YX", (300, 200)) == {("diameter", "note")}
    assert levels(spec, "YX", (3000, 2000), diameter=200.0) == {("diameter", "warn")}
    assert levels(volume, "ZYX", (40, 40, 40)) == {("spacing", "warn")}
    assert ("spacing", "warn") in levels(volume, "ZYX", (40, 300, 300), spacing=(1, 0.1, 0.1), unit="mm")


def test_no_pixels_are_needed(spec: ModelSpec) -> None:
    """A picture of ten gigabytes is described without memory; one of a terabyte is beyond the limit."""
    assert levels(spec, "YX", (10**5, 10**5), diameter=20.0) == {("diameter", "stop")}
    with pytest.raises(ImageError, match="the limit is"):
        levels(spec, "YX", (10**6, 10**6), diameter=20.0)
