"""`Image`: axes, spacing, parts; what makes a good image and what is refused, by name and value."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, as_image


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((5, 6), np.float32, "YX"),
        ((5, 6, 3), np.uint8, "CYX"),
        ((5, 6, 4), np.uint16, "CYX"),
        ((5, 6, 7), np.uint8, "ZYX"),
        ((3, 6, 7), np.uint8, "ZYX"),
        ((4, 5, 6), np.float32, "ZYX"),
        ((5, 6, 3), np.int16, "ZYX"),
    ],
)
def test_axes_are_inferred_where_plain(shape, dtype, axes):
    image = as_image(np.ones(shape, dtype))
    assert image.axes == axes
    assert image.read_as


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 6, 3), np.float32), ((2, 5, 6, 7), np.uint8), ((2, 2, 5, 6, 7), np.uint8)]
)
def test_ambiguous_axes_are_asked_for(shape, dtype):
    with pytest.raises(ImageError, match="several ways") as caught:
        as_image(np.ones(shape, dtype))
    assert str(shape) in caught.value.message
    assert "Pass axes" in caught.value.hint


def test_axes_are_put_in_order_without_losing_pixels():
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    image = as_image(array, "yxct")
    assert image.axes == "TCYX"
    assert image.array.shape == (5, 4, 2, 3)
    assert image.array[4, 3, 1, 2] == array[1, 2, 3, 4]
    assert (image.frames, image.channels, image.spatial_axes, image.spatial_shape) == (5, 4, "YX", (2, 3))
    assert (image.label_axes, image.label_shape) == ("TYX", (5, 2, 3))
    assert np.shares_memory(image.array, array)


def test_an_image_is_taken_as_it_is_or_read_anew():
    image = as_image(np.zeros((3, 4, 5), np.uint8))
    assert as_image(image) is image
    assert as_image(image, "CYX").axes == "CYX"


def test_bytes_in_foreign_order_become_native():
    array = np.arange(12, dtype=">u2").reshape(3, 4)
    image = as_image(array)
    assert image.array.dtype == np.uint16
    assert image.array.dtype.isnative
    assert (image.array == array).all()


@pytest.mark.parametrize(
    ("source", "axes", "message", "hint"),
    [
        (np.full((4, 5), np.nan), None, "20 NaN values among 20", "nan_to_num"),
        (np.array([[1.0, np.inf], [np.nan, -np.inf]]), None, "1 NaN and 2 infinite values", "nan_to_num"),
        (np.full((2, 2), 1e300), None, "exceed the range of float32", "Divide"),
        (np.zeros((0, 5)), None, r"shape \(0, 5\) is empty", "cropped"),
        (np.zeros((4, 5), bool), None, "dtype is bool", "mask"),
        (np.zeros((4, 5), complex), None, "dtype is complex128", "magnitude"),
        (np.array([["a", "b"]]), None, "dtype is <U1", "Convert"),
        (np.array([[None, 1]], dtype=object), None, "dtype is object", "Convert"),
        (np.zeros((4, 5), "datetime64[s]"), None, "dtype is datetime64", "Convert"),
        (np.zeros((4, 5), [("a", "u1")]), None, "dtype is", "Convert"),
        (np.zeros(5), None, r"shape \(5,\) has 1 axes, expected 2 to 5", "2D or 3D"),
        (np.zeros(()), None, r"shape \(\) has 0 axes", "2D or 3D"),
        (np.zeros((1,) * 6), None, "has 6 axes", "2D or 3D"),
        ([[1, 2], [3]], None, "list that numpy cannot make an array of", "numpy array"),
        (np.ma.masked_array(np.zeros((2, 2)), True), None, "masked array", "filled"),
        (np.zeros((4, 5)), "ZYX", "axes 'ZYX' for an array of shape .4, 5., expected 2", "Pass axes"),
        (np.zeros((4, 5)), "YY", "axes 'YY'", "Pass axes"),
        (np.zeros((4, 5)), "ZX", "axes 'ZX'", "Pass axes"),
        (np.zeros((4, 5, 6)), "QYX", "axes 'QYX'", "Pass axes"),
    ],
)
def test_bad_arrays_are_refused_by_name(source, axes, message, hint):
    with pytest.raises(ImageError, match=message) as caught:
        as_image(source, axes, name="cells")
    assert caught.value.message.startswith("cells: ")
    assert hint in caught.value.hint


def test_a_huge_array_is_refused_before_it_is_made(monkeypatch):
    huge = np.broadcast_to(np.uint8(0), (2**18, 2**18))
    with pytest.raises(ImageError, match=r"262144 x 262144 values takes 64.0 GiB, the limit is 16.0 GiB"):
        as_image(huge)
    monkeypatch.setenv("XLSTM_UNET_MAX_IMAGE_BYTES", "99")
    with pytest.raises(ImageError, match="10 x 10 values") as caught:
        as_image(np.zeros((10, 10), np.uint8))
    assert "XLSTM_UNET_MAX_IMAGE_BYTES" in caught.value.hint
    monkeypatch.setenv("XLSTM_UNET_MAX_IMAGE_BYTES", "many")
    with pytest.raises(ImageError, match="'many'"):
        as_image(np.zeros((10, 10), np.uint8))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spacing", (1.0,), "expected 2 positive numbers"),
        ("spacing", (1.0, 0.0), r"spacing is \(1.0, 0.0\)"),
        ("spacing", (1.0, float("nan")), "nan"),
        ("unit", "inch", "unit is 'inch'"),
        ("affine", np.zeros((4, 4)), "invertible"),
        ("affine", np.eye(3), r"shape \(3, 3\)"),
    ],
)
def test_bad_geometry_is_refused(field, value, message):
    with pytest.raises(ImageError, match=message):
        Image(np.zeros((4, 5)), "YX", **{field: value})


def test_something_else_than_an_array_is_refused():
    with pytest.raises(ImageError, match="array is a list"):
        Image([[1, 2]], "YX")


@pytest.mark.parametrize(
    "array", [np.zeros((1, 1)), np.full((7, 9), 3, np.uint8)], ids=["one-pixel", "constant"]
)
def test_small_and_constant_images_are_legal(array):
    assert as_image(array).spatial_shape == array.shape


def test_parts_cover_a_time_series_of_stacks():
    image = Image(
        np.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6),
        "TCZYX",
        spacing=(3.0, 2.0, 1.0),
        unit="µm",
        affine=np.diag([1.0, 2.0, 3.0, 1.0]),
    )
    planes = dict(image.parts(2))
    assert list(planes) == [(t, z) for t in range(2) for z in range(4)]
    assert planes[1, 2].axes == "CYX"
    assert planes[1, 2].spacing == (2.0, 1.0)
    assert planes[1, 2].unit == "µm"
    assert planes[1, 2].affine is None
    assert (planes[1, 2].array == image.array[1, :, 2]).all()
    volumes = dict(image.parts(3))
    assert list(volumes) == [(0,), (1,)]
    assert volumes[1,].axes == "CZYX"
    assert volumes[1,].affine is not None
    labels = np.zeros(image.label_shape)
    for index, part in image.parts(2):
        assert labels[index].shape == part.label_shape


def test_a_plane_is_one_part():
    image = as_image(np.zeros((5, 6)))
    for dimension in (2, 3):
        [(index, part)] = image.parts(dimension)
        assert index == ()
        assert part.axes == "YX"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((4, 4), int), r"shape \(4, 4\), expected \(4, 5\) YX"),
        (np.zeros((4, 5)), "dtype float64"),
        (np.full((4, 5), -1), "from -1 to -1"),
        (np.full((4, 5), 2**31), "expected 0 to 2147483647"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message):
    with pytest.raises(ImageError, match=message):
        as_image(np.zeros((4, 5))).check_labels(labels)
