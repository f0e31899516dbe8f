"""Volumes and regions, in real MRML."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
import XLSTMUNetLib  # noqa: F401 - makes the core importable
from XLSTMUNetLib.mrml import check_slices, place_roi, read_volume, region_of_roi

from xlstm_unet.errors import ImageError


def oblique(spacing=(0.9, 0.9, 3.0), origin=(40.0, 55.0, -30.0), flip=True) -> np.ndarray:
    """Return an IJK-to-RAS matrix under two rotations, left-handed if ``flip``."""
    a, b = np.deg2rad(23), 0.3
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = (
        about_z @ about_x @ np.diag([-spacing[0] if flip else spacing[0], -spacing[1], spacing[2]])
    )
    matrix[:3, 3] = origin
    return matrix


def add_volume(array, matrix=None, name="MRI", kind="vtkMRMLScalarVolumeNode"):
    matrix = np.diag([-1.0, -1.0, 1.0, 1.0]) if matrix is None else matrix
    return slicer.util.addVolumeFromArray(array, ijkToRAS=matrix, name=name, nodeClassName=kind)


def linear_transform(scene, *, shift=(10.0, -5.0, 3.0), degrees=30.0):
    transform = vtk.vtkTransform()
    transform.Translate(*shift)
    transform.RotateZ(degrees)
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    node.SetMatrixTransformToParent(transform.GetMatrix())
    return node


def test_a_volume_is_read_with_its_exact_geometry(scene):
    array = np.random.default_rng(0).normal(size=(20, 48, 64)).astype(np.float32)
    image = read_volume(add_volume(array, oblique(), "Kopf é 空"))
    assert np.array_equal(image.array, array)
    assert np.allclose(image.ijk_to_ras, oblique(), atol=1e-12)
    assert image.spacing_mm == pytest.approx((3.0, 0.9, 0.9))
    assert image.params()["name"] == "Kopf é 空"


def test_the_array_is_a_copy_of_the_volume(scene):
    node = add_volume(np.zeros((3, 4, 5), np.int16))
    image = read_volume(node)
    slicer.util.arrayFromVolume(node)[:] = 7
    assert not image.array.any()
    scene.RemoveNode(node)
    assert image.array.sum() == 0


def test_a_crop_stays_in_its_place(scene):
    image = read_volume(add_volume(np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6), oblique()))
    part = image.crop(np.s_[1:3, 2:5, 3:6])
    assert part.array[0, 0, 0] == image.array[1, 2, 3]
    assert np.allclose(part.ijk_to_ras @ [0, 0, 0, 1], image.ijk_to_ras @ [3, 2, 1, 1])
    assert part.spacing_mm == pytest.approx(image.spacing_mm)


def test_a_real_mri_is_read_as_slicer_reads_it(mri):
    image = read_volume(mri)
    assert image.array.shape == mri.GetImageData().GetDimensions()[::-1]
    assert image.spacing_mm == pytest.approx((1.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "shape", "text"),
    [
        ("vtkMRMLLabelMapVolumeNode", (3, 4, 5), "label map"),
        ("vtkMRMLVectorVolumeNode", (3, 4, 5, 3), "VectorVolume"),
    ],
)
def test_volumes_of_another_kind_are_refused(scene, kind, shape, text):
    node = add_volume(np.zeros(shape, np.uint8), kind=kind)
    with pytest.raises(ImageError, match=text) as caught:
        read_volume(node)
    assert caught.value.hint


def test_a_scalar_volume_of_several_components_is_refused(scene):
    data = vtk.vtkImageData()
    data.SetDimensions(3, 4, 5)
    data.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "colour")
    node.SetAndObserveImageData(data)
    with pytest.raises(ImageError, match="3 values a voxel"):
        read_volume(node)


def test_no_volume_and_an_empty_volume_are_refused(scene):
    with pytest.raises(ImageError, match="No volume is chosen"):
        read_volume(None)
    with pytest.raises(ImageError, match="holds no voxels"):
        read_volume(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))


def test_zero_spacing_is_refused(scene):
    node = add_volume(np.zeros((3, 4, 5), np.uint8))
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 2, 0.0)
    node.SetIJKToRASMatrix(matrix)
    node.SetSpacing(1, 1, 0)
    with pytest.raises(ImageError, match="spacing of"):
        read_volume(node)


def test_one_slice_is_refused_for_a_3d_model_only(scene):
    image = read_volume(add_volume(np.zeros((1, 40, 50), np.uint8), name="slice"))
    check_slices(image, 2)
    with pytest.raises(ImageError, match="single slice"):
        check_slices(image, 3)


@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("matrix", [np.diag([-1.0, -1.0, 2.0, 1.0]), oblique()], ids=["straight", "oblique"])
def test_an_roi_along_the_volume_gives_exactly_its_voxels(scene, matrix, moved):
    volume = add_volume(np.zeros((20, 30, 40), np.uint8), matrix)
    if moved:
        volume.SetAndObserveTransformNodeID(linear_transform(scene).GetID())
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    sizes = np.linalg.norm(matrix[:3, :3], axis=0)
    place_roi(roi, volume, (14.5, 9.5, 7.5), np.array([10, 8, 6]) * sizes)  # voxels 10..19, 6..13, 5..10
    assert region_of_roi(roi, volume) == np.s_[5:11, 6:14, 10:20]


def test_an_roi_in_the_world_finds_a_moved_volume(scene):
    volume = add_volume(np.zeros((20, 30, 40), np.uint8), np.eye(4))
    volume.SetAndObserveTransformNodeID(linear_transform(scene, shift=(100, 0, 0), degrees=0).GetID())
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetCenterWorld(110, 10, 10)
    roi.SetSizeWorld(4.5, 4.5, 4.5)
    assert region_of_roi(roi, volume) == np.s_[8:13, 8:13, 8:13]


def test_an_roi_over_the_edge_is_cut(scene):
    volume = add_volume(np.zeros((20, 30, 40), np.uint8), np.eye(4))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetCenter(0, 0, 0)
    roi.SetSize(1000, 10, 1000)
    assert region_of_roi(roi, volume) == np.s_[0:20, 0:6, 0:40]


@pytest.mark.parametrize(
    ("center", "size", "text"),
    [((0, 0, 0), (0, 0, 0), "is empty"), ((500, 0, 0), (10, 10, 10), "holds no voxel")],
)
def test_empty_and_outside_rois_are_refused(scene, center, size, text):
    volume = add_volume(np.zeros((20, 30, 40), np.uint8), np.eye(4))
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Kästchen")
    roi.SetCenter(*center)
    roi.SetSize(*size)
    with pytest.raises(ImageError, match=text) as caught:
        region_of_roi(roi, volume)
    assert "Kästchen" in str(caught.value)
