"""Volumes and regions: MRML nodes in, arrays and indices out.

Needs slicer and vtk only, neither Qt nor modules. Arrays are in the order K, J, I (the core's Z, Y, X);
matrices take (i, j, k, 1).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk

from xlstm_unet.errors import ImageError

Region = tuple[slice, slice, slice]
"""Start and stop along K, J and I."""

_EDGE = 1e-4
"""Part of a voxel by which the face of an ROI may miss a voxel's centre."""


@dataclass(frozen=True)
class VolumeImage:
    """What the worker is sent of a volume.

    Parameters
    ----------
    array
        Voxels, in the order K, J, I.
    ijk_to_ras
        4x4 matrix from (i, j, k, 1) to the volume's own coordinates in mm, without parent transforms.
    name
        Name of the volume.
    """

    array: np.ndarray[Any, Any]
    ijk_to_ras: np.ndarray[Any, Any]
    name: str

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Distance between voxels along K, J and I."""
        return tuple(float(size) for size in np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0)[::-1])

    @property
    def extent_mm(self) -> tuple[float, ...]:
        """Size along K, J and I."""
        return tuple(n * size for n, size in zip(self.array.shape, self.spacing_mm, strict=True))

    def crop(self, region: Region) -> VolumeImage:
        """Return a part of the image in its place; it shares memory."""
        shifted = np.array(self.ijk_to_ras)
        shifted[:3, 3] += self.ijk_to_ras[:3, :3] @ [part.start for part in reversed(region)]
        return replace(self, array=self.array[region], ijk_to_ras=shifted)

    def params(self) -> dict[str, Any]:
        """Return the parameters that go with the array ``image`` in requests to the worker."""
        return {
            "axes": "ZYX",
            "spacing": self.spacing_mm,
            "unit": "mm",
            "affine": self.ijk_to_ras.tolist(),
            "name": self.name[:1000] or "volume",
        }


def read_volume(node: Any, *, copy: bool = True) -> VolumeImage:
    """Return the voxels and the place of a scalar volume.

    Parameters
    ----------
    node
        A ``vtkMRMLScalarVolumeNode``.
    copy
        Whether the array is the caller's own; otherwise it is the volume's memory.

    Raises
    ------
    ImageError
        If there is no volume, or it holds something else than one number a voxel, or has no usable geometry.
    """
    if node is None:
        raise ImageError("No volume is chosen.", "Load an image, and choose it under 'Input volume'.")
    name = node.GetName() or "volume"
    kind = node.GetClassName()
    if kind == "vtkMRMLLabelMapVolumeNode":
        raise ImageError(f"'{name}' is a label map, not an image.", "Choose the volume that was segmented.")
    if kind != "vtkMRMLScalarVolumeNode":
        raise ImageError(
            f"'{name}' is of the kind {kind.removeprefix('vtkMRML').removesuffix('Node')}, expected a scalar "
            "volume.",
            "Make one with the module 'Vector to Scalar Volume' (colour) or by extracting a component.",
        )
    data = node.GetImageData()
    if data is None or data.GetPointData().GetScalars() is None or 0 in data.GetDimensions():
        raise ImageError(f"'{name}' holds no voxels.", "Load it again.")
    if data.GetNumberOfScalarComponents() != 1:
        raise ImageError(
            f"'{name}' has {data.GetNumberOfScalarComponents()} values a voxel, expected one.",
            "Convert it with the module 'Vector to Scalar Volume'.",
        )
    array = slicer.util.arrayFromVolume(node)
    return VolumeImage(np.array(array) if copy else array, ijk_to_ras(node), name)


def check_slices(image: VolumeImage, dimension: int) -> None:
    """Refuse a volume of a single slice where the model needs three dimensions.

    Raises
    ------
    ImageError
        With the size found.
    """
    if dimension == 3 and min(image.array.shape) < 2:
        size = " x ".join(str(n) for n in image.array.shape[::-1])
        raise ImageError(
            f"'{image.name}' has {size} voxels: a single slice; the model needs a volume.",
            "Choose a volume of several slices, or a 2D model.",
        )


def ijk_to_ras(node: Any) -> np.ndarray[Any, Any]:
    """Return a volume's matrix from voxel indices to its own coordinates.

    Raises
    ------
    ImageError
        If it is singular: a spacing is zero.
    """
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    found = slicer.util.arrayFromVTKMatrix(matrix)
    sizes = np.linalg.norm(found[:3, :3], axis=0)
    if not np.isfinite(found).all() or sizes.min() <= 0 or abs(np.linalg.det(found[:3, :3] / sizes)) < 1e-6:
        raise ImageError(
            f"'{node.GetName()}' has a spacing of {' x '.join(f'{size:g}' for size in sizes)} mm "
            "or axes that coincide.",
            "Set the image spacing in the module 'Volumes', under Volume Information.",
        )
    return found


def region_of_roi(roi: Any, volume: Any) -> Region:
    """Return the voxels of a volume whose centres lie in the box around an ROI.

    Parent transforms of both are applied. An ROI that is oblique to the volume is taken with the box around
    it, along the volume's axes.

    Raises
    ------
    ImageError
        If the ROI is empty or lies outside the volume.
    """
    name = roi.GetName()
    size = np.array(roi.GetSize())
    if size.min() <= 0:
        raise ImageError(
            f"The region '{name}' is empty ({' x '.join(f'{n:.3g}' for n in size)} mm).",
            "Draw it around what is to be segmented.",
        )
    to_ijk = np.linalg.inv(ijk_to_ras(volume))
    from_world = transform_between(None, volume.GetParentTransformNode())
    corners = []
    for signs in itertools.product((-0.5, 0.5), repeat=3):
        point = roi.GetObjectToWorldMatrix().MultiplyPoint((*(np.array(signs) * size), 1.0))
        corners.append(to_ijk @ [*from_world.TransformPoint(point[:3]), 1.0])
    low = np.ceil(np.min(corners, axis=0)[:3] - _EDGE).astype(int)
    high = np.floor(np.max(corners, axis=0)[:3] + _EDGE).astype(int) + 1
    shape = np.array(volume.GetImageData().GetDimensions())
    low, high = np.maximum(low, 0), np.minimum(high, shape)
    if (high <= low).any():
        raise ImageError(
            f"The region '{name}' holds no voxel of '{volume.GetName()}'.",
            "Move it onto the image, or make it larger.",
        )
    starts, stops = low[::-1].tolist(), high[::-1].tolist()
    return slice(starts[0], stops[0]), slice(starts[1], stops[1]), slice(starts[2], stops[2])


def place_roi(roi: Any, volume: Any, center: Sequence[float], size_mm: Sequence[float]) -> None:
    """Put an ROI along a volume's axes.

    Parameters
    ----------
    roi, volume
        The nodes; the ROI gets the volume's transform.
    center
        Middle in voxel indices i, j, k.
    size_mm
        Size along I, J and K.
    """
    matrix = ijk_to_ras(volume)
    directions = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    placed = np.eye(4)
    placed[:3, :3] = directions
    placed[:3, 3] = (matrix @ [*center, 1.0])[:3]
    roi.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    roi.SetAndObserveObjectToNodeMatrix(slicer.util.vtkMatrixFromArray(placed))
    roi.SetSize(*size_mm)


def transform_between(source: Any, target: Any) -> vtk.vtkGeneralTransform:
    """Return the transform from one transform node's inside to another's; None stands for the world."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(source, target, transform)
    return transform


def matrix_between(source: Any, target: Any) -> np.ndarray[Any, Any] | None:
    """Return the same as a 4x4 matrix, or None if it is not linear."""
    if source is target:
        return np.eye(4)
    for node in (source, target):
        if node is not None and not node.IsTransformToWorldLinear():
            return None
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(source, target, matrix)
    return slicer.util.arrayFromVTKMatrix(matrix)


def subject_hierarchy_parent(node: Any) -> Any:
    """Return the item under which a node lies in the subject hierarchy."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    return hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node))


def place_beside(node: Any, neighbour: Any) -> None:
    """Put a node into the study or folder of another."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(node.GetScene())
    parent = subject_hierarchy_parent(neighbour)
    if parent:
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(node), parent)
