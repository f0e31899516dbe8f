"""Overlay pictures: outlines where objects end, bounded size, the right plane."""

from __future__ import annotations

import imagecodecs
import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, as_image, read_image, read_labels, write_overlay
from xlstm_unet.images.overlay import outlines


def shown(path):
    return imagecodecs.png_decode(path.read_bytes())


def test_outlines_are_the_rim_of_each_object():
    labels = np.zeros((7, 9), int)
    labels[1:6, 1:5] = 1
    labels[1:6, 5:8] = 2
    expected = labels > 0
    expected[2:5, 2:4] = False
    expected[2:5, 6] = False
    assert (outlines(labels) == expected).all()


def test_an_overlay_shows_the_image_with_coloured_outlines(tmp_path, data):
    image = read_image(data / "nuclei/images/fluo_small.png")
    labels = read_labels(data / "nuclei/labels/fluo_small.png")
    write_overlay(tmp_path / "o.png", image, labels)
    picture = shown(tmp_path / "o.png")
    assert picture.shape == (256, 256, 3)
    coloured = picture.max(axis=-1) != picture.min(axis=-1)
    assert (coloured == outlines(labels)).all()
    first = outlines(labels) & (labels == 1)
    assert len(np.unique(picture[first], axis=0)) == 1


def test_colour_stays_as_it_is(tmp_path, data):
    image = read_image(data / "nuclei/images/hist_pink_he.png")
    write_overlay(tmp_path / "o.png", image, np.zeros(image.label_shape, int))
    assert (shown(tmp_path / "o.png") == np.moveaxis(image.array, 0, -1)).all()


def test_large_images_are_shrunk(tmp_path):
    write_overlay(
        tmp_path / "o.png", as_image(np.zeros((300, 1000), np.uint8)), np.ones((300, 1000), int), max_side=200
    )
    assert shown(tmp_path / "o.png").shape == (60, 200, 3)


def test_the_fullest_plane_of_a_stack_is_shown(tmp_path):
    image = Image(np.zeros((3, 20, 20)), "ZYX")
    labels = np.zeros((3, 20, 20), int)
    labels[1, 5:15, 5:15] = 4
    labels[2, 5:7, 5:7] = 4
    write_overlay(tmp_path / "o.png", image, labels)
    picture = shown(tmp_path / "o.png")
    assert ((picture.max(axis=-1) > 0) == outlines(labels[1])).all()


@pytest.mark.parametrize("shape", [(1, 1), (5, 6)])
def test_one_pixel_and_constant_images_have_an_overlay(tmp_path, shape):
    write_overlay(tmp_path / "o.png", as_image(np.full(shape, 7.0)), np.ones(shape, int))
    assert shown(tmp_path / "o.png").shape == (*shape, 3)


def test_labels_of_another_shape_are_refused(tmp_path):
    with pytest.raises(ImageError, match="expected"):
        write_overlay(tmp_path / "o.png", as_image(np.zeros((5, 6))), np.ones((6, 5), int))
