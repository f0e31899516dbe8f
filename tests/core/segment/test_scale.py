"""At which scale a model sees an image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from xlstm_unet.errors import ImageError, ModelError
from xlstm_unet.images import Image
from xlstm_unet.segment.scale import Scale, given_scale
from xlstm_unet.spec import Decoding, ModelSpec

MakeSpec = Callable[..., ModelSpec]


def image(shape: tuple[int, ...] = (40, 50), **fields: object) -> Image:
    return Image(np.zeros(shape, np.uint8), "ZYX"[-len(shape) :], **fields)  # type: ignore[arg-type]


def test_without_any_knowledge_the_image_is_taken_as_it_is(make_spec: MakeSpec) -> None:
    assert given_scale(image(), make_spec(), None) == Scale((1.0, 1.0))


def test_spacing_decides_in_whatever_unit(make_spec: MakeSpec) -> None:
    spec = make_spec(spacing=(0.5, 0.5), spacing_unit="µm", object_diameter=20.0)
    scale = given_scale(image(spacing=(0.001, 0.001), unit="mm"), spec, None)
    assert scale is not None
    assert scale.factors == (2.0, 2.0)
    assert scale.diameter == 10.0
    assert "0.001 x 0.001 mm to 0.5 x 0.5 µm" in scale.note


def test_anisotropic_volumes_become_the_models(make_spec: MakeSpec) -> None:
    spec = make_spec(3, task="classes", spacing=(1.0, 1.0, 1.0), spacing_unit="mm")
    volume = image((20, 100, 100), spacing=(6.5, 0.86, 0.86), unit="mm")
    scale = given_scale(volume, spec, None)
    assert scale is not None
    assert scale.factors == (6.5, 0.86, 0.86)
    assert scale.shape(volume, (20, 100, 100), spec) == (130, 86, 86)


def test_the_users_diameter_goes_before_spacing(make_spec: MakeSpec) -> None:
    spec = make_spec(spacing=(0.5, 0.5), spacing_unit="µm", object_diameter=20.0)
    scale = given_scale(image(spacing=(1.0, 1.0), unit="µm"), spec, 40)
    assert scale is not None
    assert scale.factors == (0.5, 0.5)
    assert "given" in scale.note


def test_small_differences_are_not_worth_resampling(make_spec: MakeSpec) -> None:
    scale = given_scale(image(), make_spec(object_diameter=20.0), 20.3)
    assert scale is not None
    assert scale.factors == (1.0, 1.0)


def test_unknown_diameter_is_to_be_estimated(make_spec: MakeSpec) -> None:
    spec = make_spec(object_diameter=20.0)
    assert given_scale(image(), spec, None) is None
    assert given_scale(image(spacing=(1.0, 1.0), unit="µm"), spec, None) is None


def test_unknown_spacing_is_said(make_spec: MakeSpec) -> None:
    scale = given_scale(image(), make_spec(spacing=(0.5, 0.5), spacing_unit="µm"), None)
    assert scale is not None
    assert "Spacing unknown" in scale.note


def test_smallest_object_grows_with_the_image(make_spec: MakeSpec) -> None:
    spec = make_spec(decoding=Decoding(min_size=16))
    assert Scale((0.5, 0.5)).min_size(spec) == 64
    assert Scale((1.0, 1.0)).min_size(spec) == 16


def test_a_speck_of_few_pixels_is_no_object_however_much_the_image_is_enlarged(make_spec: MakeSpec) -> None:
    spec = make_spec(decoding=Decoding(min_size=40))
    assert Scale((2.0, 2.0)).min_size(spec) == 20
    assert Scale((1.0, 4.0)).min_size(spec) == 20


@pytest.mark.parametrize("diameter", [0, -3, float("nan"), float("inf"), 0.2])
def test_impossible_diameters_are_refused(make_spec: MakeSpec, diameter: float) -> None:
    with pytest.raises(ImageError, match="diameter is"):
        given_scale(image(), make_spec(object_diameter=20.0), diameter)


def test_a_diameter_for_a_model_without_one_is_refused(make_spec: MakeSpec) -> None:
    with pytest.raises(ModelError, match="no object diameter"):
        given_scale(image(), make_spec(task="classes"), 20)


def test_absurd_spacing_is_refused_before_memory_is_taken(make_spec: MakeSpec) -> None:
    spec = make_spec(3, task="classes", spacing=(1.0, 1.0, 1.0), spacing_unit="mm")
    volume = image((20, 100, 100), spacing=(1000.0, 1000.0, 1000.0), unit="mm")
    scale = given_scale(volume, spec, None)
    assert scale is not None
    with pytest.raises(ImageError, match="At the scale of small") as caught:
        scale.shape(volume, (20, 100, 100), spec)
    assert "spacing" in caught.value.hint
