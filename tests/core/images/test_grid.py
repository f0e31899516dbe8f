"""Images on one grid, and channels in files of their own."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, check_same_grid, join_channels, read_image, read_labels

AFFINE = np.diag([-0.9, 0.9, 5.0, 1.0])


def volume(name, shape=(5, 6, 7), affine=AFFINE, axes="ZYX"):
    return Image(np.zeros(shape, np.int16), axes, unit="mm", affine=affine, name=name)


def moved(millimetres):
    affine = AFFINE.copy()
    affine[0, 3] += millimetres
    return affine


def test_the_same_place_to_half_a_voxel():
    first = volume("t1")
    for other in (volume("t2"), volume("t2", affine=moved(0.4)), volume("t2", affine=None)):
        check_same_grid(first, other, "channel")
    with pytest.raises(ImageError, match=r"t2: channel lies up to 1 voxels away from t1"):
        check_same_grid(first, volume("t2", affine=moved(0.9)), "channel")
    with pytest.raises(ImageError, match="lies up to"):
        check_same_grid(first, volume("t2", affine=np.diag([0.9, 0.9, 5.0, 1.0])), "channel")
    with pytest.raises(ImageError, match=r"label file of 5 x 6 x 8 voxels, t1 has 5 x 6 x 7"):
        check_same_grid(first, volume("t2", (5, 6, 8)), "label file")


def test_channels_are_joined_in_their_order():
    first, second = volume("a_0000"), replace(volume("a_0001"), array=np.ones((5, 6, 7), np.int16))
    joined = join_channels([first, second])
    assert joined.axes == "CZYX"
    assert [int(channel.max()) for channel in joined.array] == [0, 1]
    assert (joined.affine == AFFINE).all()
    assert join_channels([first]).channels == 1


def test_channels_that_do_not_fit():
    with pytest.raises(ImageError, match="expected a file for each"):
        join_channels([volume("a", (2, 5, 6, 7), axes="CZYX"), volume("b")])
    with pytest.raises(ImageError, match="2 time points, a has 1"):
        join_channels([volume("a"), volume("b", (2, 5, 6, 7), axes="TZYX")])
    with pytest.raises(ImageError, match="voxels away"):
        join_channels([volume("a"), volume("b", affine=moved(2))])


def test_labels_off_the_grid(data, tmp_path):
    image = read_image(data / "hippocampus" / "images" / "hippocampus_125.nii.gz")
    source = data / "hippocampus" / "labels" / "hippocampus_125.nii.gz"
    assert read_labels(source, like=image).shape == image.spatial_shape
    file = nib.load(source)
    flipped = file.as_reoriented([[0, -1], [1, 1], [2, 1]])
    nib.save(flipped, tmp_path / "flipped.nii.gz")
    with pytest.raises(ImageError, match="flipped: label file lies up to"):
        read_labels(tmp_path / "flipped.nii.gz", like=image)
    nib.save(file.slicer[1:], tmp_path / "cut.nii.gz")
    with pytest.raises(ImageError, match="cut: label file of"):
        read_labels(tmp_path / "cut.nii.gz", like=image)
