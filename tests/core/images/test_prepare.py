"""Channels and normalisation: what a network is given."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError, ImageError
from xlstm_unet.images import Image, as_image, channels_first, fit_normalisation, normalise, read_image
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

GENERATOR = np.random.default_rng(0)
ALL_SCHEMES = ["percentile", "zscore", "ct", "rescale01", "rgb01", "none"]


def model(channels=1, dimension=2, accepts_gray=False):
    ones, twos, threes = (tuple([n] * dimension) for n in (1, 2, 3))
    network = NetworkSpec(
        variant="bot",
        features=(8, 16),
        kernels=(threes, threes),
        strides=(ones, twos),
        encoder_blocks=(1, 1),
        decoder_blocks=(1,),
    )
    return ModelSpec(
        name="m",
        dimension=dimension,
        input_channels=channels,
        accepts_gray=accepts_gray,
        task="instances",
        labels=(Label(value=1, name="cell"),),
        network=network,
        normalisation=(Normalisation(scheme="percentile"),),
        patch_size=(64,) * dimension,
    )


@pytest.mark.parametrize(
    ("shape", "axes", "spec", "expected"),
    [
        ((5, 6), "YX", model(), (1, 5, 6)),
        ((5, 6), "YX", model(3, accepts_gray=True), (3, 5, 6)),
        ((5, 6, 3), "YXC", model(3), (3, 5, 6)),
        ((5, 6, 4), "YXC", model(3), (3, 5, 6)),
        ((5, 6, 1), "YXC", model(), (1, 5, 6)),
        ((2, 5, 6), "CYX", model(2), (2, 5, 6)),
        ((1, 5, 6), "TYX", model(), (1, 5, 6)),
        ((4, 5, 6), "ZYX", model(dimension=3), (1, 4, 5, 6)),
        ((4, 2, 5, 6), "ZCYX", model(2, dimension=3), (2, 4, 5, 6)),
    ],
)
def test_channels_come_first_and_match_the_model(shape, axes, spec, expected):
    array = GENERATOR.integers(0, 255, shape, dtype=np.uint8)
    image = as_image(array, axes)
    result = channels_first(image, spec)
    assert result.shape == expected
    source = image.array if "C" in image.axes else image.array.reshape((1, *image.spatial_shape))
    assert (result == source[:3]).all()


def test_gray_saved_as_colour_counts_as_gray():
    plane = GENERATOR.integers(0, 255, (5, 6, 1), dtype=np.uint8)
    assert channels_first(as_image(np.repeat(plane, 3, axis=2)), model()).shape == (1, 5, 6)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes", "spec", "message"),
    [
        ((5, 6, 3), np.uint8, "YXC", model(), r"3 channels \(axes CYX\), model m takes 1"),
        ((5, 6), np.uint8, "YX", model(3), "1 channels .* takes 3"),
        ((4, 5, 6), np.float32, "CYX", model(3), "4 channels .* takes 3"),
        ((5, 6, 2), np.uint8, "YXC", model(3, accepts_gray=True), "takes 3 or 1"),
        ((4, 5, 6), np.uint8, "ZYX", model(), r"image is 3D \(ZYX\), model m takes 2D"),
        ((5, 6), np.uint8, "YX", model(dimension=3), r"image is 2D \(YX\), model m takes 3D"),
        ((2, 5, 6), np.uint8, "TYX", model(), "2 time points"),
    ],
)
def test_images_that_do_not_fit_the_model_are_refused(shape, dtype, axes, spec, message):
    array = (GENERATOR.random(shape) * 200).astype(dtype)
    with pytest.raises(ImageError, match=message):
        channels_first(as_image(array, axes, name="cells"), spec)


def test_percentile_puts_its_two_percentiles_at_0_and_1():
    array = GENERATOR.gamma(2.0, 100.0, (1, 200, 300))
    result = normalise(array, (Normalisation(scheme="percentile", low=1, high=99.8),))
    assert np.percentile(result, (1, 99.8)) == pytest.approx((0, 1), abs=1e-5)
    assert result.dtype == np.float32


def test_percentile_of_a_large_image_is_close_and_repeatable():
    array = GENERATOR.integers(0, 60_000, (1, 3000, 2000), dtype=np.uint16)
    scheme = (Normalisation(scheme="percentile", low=1, high=99),)
    first = normalise(array, scheme)
    assert np.percentile(first, (1, 99)) == pytest.approx((0, 1), abs=2e-3)
    assert (normalise(array, scheme) == first).all()


def test_hot_pixels_are_clipped_and_sparse_images_are_not_lost():
    array = np.zeros((1, 100, 100), np.uint16)
    array[0, 3, 4] = 65535
    result = normalise(array, (Normalisation(scheme="percentile"),))
    assert result[0, 3, 4] == 1
    assert result.sum() == 1
    array[:] = GENERATOR.integers(0, 10, array.shape)
    array[0, 3, 4] = 65535
    assert normalise(array, (Normalisation(scheme="percentile"),)).max() == 4


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        (Normalisation(scheme="zscore"), lambda a: (a - a.mean()) / a.std()),
        (Normalisation(scheme="rescale01"), lambda a: (a - a.min()) / (a.max() - a.min())),
        (
            Normalisation(scheme="ct", low=50, high=150, mean=90, std=20),
            lambda a: (np.clip(a, 50, 150) - 90) / 20,
        ),
        (Normalisation(scheme="rgb01"), lambda a: a / 255),
        (Normalisation(scheme="none"), lambda a: a),
    ],
    ids=lambda item: item.scheme if isinstance(item, Normalisation) else "",
)
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_schemes_are_what_they_say(scheme, expected, dtype):
    array = GENERATOR.integers(0, 255, (2, 30, 40)).astype(dtype)
    if scheme.scheme == "rgb01" and dtype == np.int16:
        pytest.skip("signed 16 bits have another white")
    result = normalise(array, (scheme,))
    assert result == pytest.approx(expected(array.astype(np.float64)), abs=1e-5)


def test_each_channel_by_itself_or_all_together():
    array = np.stack([GENERATOR.random((20, 30)), 100 * GENERATOR.random((20, 30))])
    scheme = Normalisation(scheme="rescale01")
    together = normalise(array, (scheme,))
    apart = normalise(array, (scheme, scheme))
    assert together[0].max() < 0.02
    assert apart[0].max() == 1
    with pytest.raises(ImageError, match="2 channels with 3 normalisations"):
        normalise(array, (scheme,) * 3)


@pytest.mark.parametrize("scheme", ALL_SCHEMES)
@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 8, 9), (1, 4, 5, 6)])
def test_constant_and_one_pixel_images_stay_finite(scheme, value, shape):
    result = normalise(np.full(shape, value, np.uint8), (Normalisation(scheme=scheme),))
    assert np.isfinite(result).all()
    if scheme in ("percentile", "zscore", "rescale01"):
        assert (result == 0).all()


@pytest.mark.parametrize("scheme", ["percentile", "zscore", "rescale01"])
def test_extreme_values_stay_finite(scheme):
    array = np.array([[[0.0, 3e38], [-3e38, 1.0]]])
    assert np.isfinite(normalise(array, (Normalisation(scheme=scheme),))).all()
    large = np.array([[[0, 2**63], [5, 2**62]]], np.uint64)
    assert np.isfinite(normalise(large, (Normalisation(scheme=scheme),))).all()


def test_a_fit_holds_for_parts_and_can_be_cancelled(data):
    image = read_image(data / "nuclei/images/fluo_large.png")
    array = channels_first(image, model())
    scheme = (Normalisation(scheme="percentile"),)
    fitted = fit_normalisation(array, scheme)
    assert (fitted(array[:, 100:200, 50:90]) == normalise(array, scheme)[:, 100:200, 50:90]).all()
    with pytest.raises(CancelledError):
        fitted(array, cancel=lambda: True)


def test_input_is_left_alone():
    array = GENERATOR.random((1, 20, 20)).astype(np.float32)
    before = array.copy()
    normalise(array, (Normalisation(scheme="ct", low=0.2, high=0.5),))
    channels_first(Image(array, "CYX"), model())
    assert (array == before).all()
