"""Segmentations: labels into segments with stable IDs, and segments back into labels.

A segment of ours is known by its ID, and by a tag that survives saving; never by its place or label value,
which change. The user may rename and recolour it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import numpy_to_vtk

from xlstm_unet.errors import ImageError
from XLSTMUNetLib.mrml import ijk_to_ras, matrix_between, place_beside

LABEL_TAG = "XLSTMUNet.Label"
MODEL_TAG = "XLSTMUNet.Model"
MAX_SEGMENTS = 300
"""More objects than that make Slicer's segment list unusable."""

_ENTRY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure~{}~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)

Labels = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Label:
    """One thing that a model finds, as ``describe_model`` tells it."""

    value: int
    name: str
    color: tuple[int, int, int] = (255, 170, 0)
    terminology: str = ""
    """A whole entry as Slicer writes it, or the code of an anatomical structure alone."""

    @property
    def segment_id(self) -> str:
        """ID of its segment, the same in every segmentation."""
        return "XLSTMUNet_" + "".join(c if c.isalnum() else "_" for c in self.name)


def labels_of_spec(spec: dict[str, Any]) -> tuple[Label, ...]:
    """Return the labels of a model's specification."""
    return tuple(
        Label(entry["value"], entry["name"], tuple(entry["color"]), entry["terminology"])
        for entry in spec["labels"]
    )


def labels_of_objects(count: int, what: Label) -> tuple[Label, ...]:
    """Return one label for each object that a model of instances found.

    Raises
    ------
    ImageError
        If there are too many for a segmentation.
    """
    if count > MAX_SEGMENTS:
        raise ImageError(
            f"The model found {count} objects; a segmentation can show {MAX_SEGMENTS}.",
            "Choose a smaller region, or use napari or the command line.",
        )
    colors = np.random.default_rng(0).integers(64, 256, (count, 3))
    return tuple(
        Label(number, f"{what.name} {number}", tuple(int(part) for part in color), what.terminology)
        for number, color in enumerate(colors, 1)
    )


def find_segment(segmentation: Any, label: Label) -> str | None:
    """Return the ID of the segment that stands for a label, or None."""
    own = segmentation.GetSegmentation()
    if own.GetSegment(label.segment_id) is not None:
        return label.segment_id
    for segment_id, segment in segments_of(segmentation):
        if read_tag(segment, LABEL_TAG) == label.name:
            return segment_id
    return None


def adopt_segment(segmentation: Any, segment_id: str) -> Label:
    """Make a segment of the user's stand for a label of its name; value 0, the model decides on one."""
    segment = segmentation.GetSegmentation().GetSegment(segment_id)
    segment.SetTag(LABEL_TAG, segment.GetName())
    red, green, blue = (round(255 * part) for part in segment.GetColor())
    terminology = read_tag(segment, slicer.vtkSegment.GetTerminologyEntryTagName())
    return Label(0, segment.GetName(), (red, green, blue), terminology)


def unknown_segments(segmentation: Any, labels: Sequence[Label]) -> list[str]:
    """Return the IDs of the segments that a model does not know and that are not empty."""
    known = {find_segment(segmentation, label) for label in labels}
    return [
        segment_id
        for segment_id, _ in segments_of(segmentation)
        if segment_id not in known and not _is_empty(segmentation, segment_id)
    ]


def segments_of(segmentation: Any) -> Iterator[tuple[str, Any]]:
    """Yield ID and segment of every segment, in order."""
    own = segmentation.GetSegmentation()
    for index in range(own.GetNumberOfSegments()):
        yield own.GetNthSegmentID(index), own.GetNthSegment(index)


def read_tag(segment: Any, name: str) -> str:
    """Return a tag of a segment; empty if it has none."""
    value = vtk.reference("")
    return str(value) if segment.GetTag(name, value) else ""


def remove_segments_of(segmentation: Any, model: str) -> None:
    """Remove the objects that a model found before."""
    ids = [sid for sid, segment in segments_of(segmentation) if read_tag(segment, MODEL_TAG) == model]
    for segment_id in ids:
        segmentation.GetSegmentation().RemoveSegment(segment_id)


def new_segmentation(volume: Any, name: str) -> Any:
    """Return a new segmentation on the grid of a volume, beside it in space and subject hierarchy."""
    node = volume.GetScene().AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    bind_to_volume(node, volume)
    node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
    place_beside(node, volume)
    return node


def bind_to_volume(segmentation: Any, volume: Any) -> None:
    """Make a volume the one whose grid a segmentation follows."""
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    segmentation.SetNodeReferenceID(role, volume.GetID())


def write_labels(
    segmentation: Any, volume: Any, array: Labels, labels: Sequence[Label], model: str
) -> list[str]:
    """Write an array of labels into a segmentation; segments that stand for none of them stay as they are.

    Save a state for undo before. A new segment gets the label's name, colour and terminology; one that is
    there keeps what the user gave it. A surface that was shown is made again.

    Parameters
    ----------
    segmentation, volume
        The nodes.
    array
        Labels on the grid of the volume, in the order K, J, I; 0 is background.
    labels
        What its values stand for; one without voxels becomes an empty segment.
    model
        Name of the model, kept as a tag.

    Returns
    -------
    ids
        One segment ID a label.

    Raises
    ------
    ImageError
        If the array does not fit the volume, or the two nodes are moved by different transforms that are not
        linear.
    """
    matrix = _matrix_into(segmentation, volume)
    if array.shape != volume.GetImageData().GetDimensions()[::-1]:
        raise ImageError(
            f"The labels have the shape {array.shape}, but '{volume.GetName()}' has "
            f"{volume.GetImageData().GetDimensions()[::-1]}.",
            "The volume was changed meanwhile: segment it again.",
        )
    had_surface = segmentation.GetSegmentation().ContainsRepresentation(
        slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    )
    modified = segmentation.StartModify()
    try:
        ids = [_write_one(segmentation, array, label, matrix, model) for label in labels]
    finally:
        segmentation.EndModify(modified)
    if had_surface:
        segmentation.CreateClosedSurfaceRepresentation()
    return ids


def read_labels(
    segmentation: Any, volume: Any, labels: Sequence[Label], base: Labels | None = None
) -> Labels:
    """Return what the segments of a model say now, as one array of labels on a volume's grid.

    Where segments overlap the changed one counts: what differs from ``base`` wins over what does not, and
    later segments over earlier ones.

    Parameters
    ----------
    segmentation, volume
        The nodes.
    labels
        Labels to read; one whose segment is gone has no voxels.
    base
        What the model predicted, or None.

    Returns
    -------
    array
        int32, in the order K, J, I.
    """
    shape = volume.GetImageData().GetDimensions()[::-1]
    found = np.zeros(shape, np.int32)
    masks = {}
    for label in labels:
        segment_id = find_segment(segmentation, label)
        if segment_id is not None and not _is_empty(segmentation, segment_id):
            masks[label.value] = segment_mask(segmentation, segment_id, volume)
    for value, mask in masks.items():
        found[mask] = value
    if base is not None:
        for value, mask in masks.items():
            found[mask & (base != value)] = value
    return found


def segment_mask(segmentation: Any, segment_id: str, volume: Any) -> Labels:
    """Return where a segment is on a volume's grid, parent transforms applied; bool, in the order K, J, I."""
    scene = segmentation.GetScene()
    ids = vtk.vtkStringArray()
    ids.InsertNextValue(segment_id)
    node = slicer.vtkMRMLLabelMapVolumeNode()
    node.SetHideFromEditors(True)
    node = scene.AddNode(node)
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    try:
        if not logic.ExportSegmentsToLabelmapNode(segmentation, ids, node, volume):
            raise ImageError(
                f"Segment '{segment_id}' of '{segmentation.GetName()}' cannot be read on the grid of "
                f"'{volume.GetName()}'.",
                "Check the transforms of both.",
            )
        return np.array(slicer.util.arrayFromVolume(node)) > 0
    finally:
        display = node.GetDisplayNode()
        scene.RemoveNode(node)
        if display is not None:
            scene.RemoveNode(display)


def oriented_image(array: Labels, ijk_to_world: np.ndarray[Any, Any]) -> Any:
    """Return a mask as a ``vtkOrientedImageData`` that holds the box around its voxels only."""
    places = [np.flatnonzero(array.any(axis=tuple(set(range(3)) - {axis}))) for axis in range(3)]
    box = [(int(place[0]), int(place[-1]) + 1) if len(place) else (0, 1) for place in places]
    part = np.ascontiguousarray(array[tuple(slice(*span) for span in box)], np.uint8)
    image = slicer.vtkOrientedImageData()
    image.SetExtent(*(edge for start, stop in reversed(box) for edge in (start, stop - 1)))
    image.GetPointData().SetScalars(numpy_to_vtk(part.ravel(), deep=True))
    image.SetImageToWorldMatrix(slicer.util.vtkMatrixFromArray(ijk_to_world))
    return image


def _matrix_into(segmentation: Any, volume: Any) -> np.ndarray[Any, Any]:
    """Return the matrix from a volume's voxels to the coordinates of a segmentation."""
    between = matrix_between(volume.GetParentTransformNode(), segmentation.GetParentTransformNode())
    if between is None:
        raise ImageError(
            f"'{segmentation.GetName()}' and '{volume.GetName()}' lie under different transforms, "
            "one of which is not linear.",
            "Put both under the same transform, harden it, or write into a new segmentation.",
        )
    return between @ ijk_to_ras(volume)


def _write_one(
    segmentation: Any, array: Labels, label: Label, matrix: np.ndarray[Any, Any], model: str
) -> str:
    own = segmentation.GetSegmentation()
    segment_id = find_segment(segmentation, label)
    if segment_id is None:
        color = [part / 255 for part in label.color]
        segment_id = own.AddEmptySegment(label.segment_id, label.name, color)
        if label.terminology:
            tag = slicer.vtkSegment.GetTerminologyEntryTagName()
            whole = label.terminology if "~" in label.terminology else _ENTRY.format(label.terminology)
            own.GetSegment(segment_id).SetTag(tag, whole)
    segment = own.GetSegment(segment_id)
    segment.SetTag(LABEL_TAG, label.name)
    segment.SetTag(MODEL_TAG, model)
    mask = array == label.value
    logic = slicer.vtkSlicerSegmentationsModuleLogic
    if mask.any():
        image = oriented_image(mask, matrix)
        logic.SetBinaryLabelmapToSegment(image, segmentation, segment_id, logic.MODE_REPLACE)
    elif not _is_empty(segmentation, segment_id):
        logic.ClearSegment(segmentation, segment_id)
    return segment_id


def _is_empty(segmentation: Any, segment_id: str) -> bool:
    image = slicer.vtkOrientedImageData()
    if not segmentation.GetBinaryLabelmapRepresentation(segment_id, image):
        return True
    extent = image.GetExtent()
    if (
        any(extent[2 * axis] > extent[2 * axis + 1] for axis in range(3))
        or image.GetPointData().GetScalars() is None
    ):
        return True
    effective = [0, -1, 0, -1, 0, -1]
    found = slicer.vtkOrientedImageDataResample.CalculateEffectiveExtent(image, effective)
    return not found or effective[0] > effective[1]
