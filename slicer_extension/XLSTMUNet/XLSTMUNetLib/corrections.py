"""What the user changed: the model's prediction, kept in the scene, against the segments as they are.

The prediction and the accepted regions are hidden label maps that the segmentation refers to, so that a saved
scene can be corrected further.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import slicer
import slicer.util

from xlstm_unet.errors import ImageError
from XLSTMUNetLib.mrml import Region, ijk_to_ras, region_of_roi

PREDICTION_ROLE = "XLSTMUNet.prediction"
ACCEPTED_ROLE = "XLSTMUNet.accepted"
MODEL_ATTRIBUTE = "XLSTMUNet.model"
SAVED_ATTRIBUTE = "XLSTMUNet.saved"
"""Set while the worker's store holds corrections that were made in this segmentation."""
REGIONS_ATTRIBUTE = "XLSTMUNet.regions"

Array = np.ndarray[Any, Any]


def keep_prediction(
    segmentation: Any,
    volume: Any,
    labels: Array,
    model: str,
    *,
    accepted: Array | None = None,
    regions: Sequence[Region] = (),
) -> None:
    """Remember what a model predicted.

    Parameters
    ----------
    segmentation, volume
        The nodes.
    labels
        The prediction on the grid of the volume.
    model
        Name of the model.
    accepted
        Where the user has said before what is right; None: nowhere.
    regions
        The parts of the volume that the model was shown, where it expects parts.
    """
    _keep(segmentation, volume, PREDICTION_ROLE, labels.astype(np.int16), "prediction")
    if accepted is None or not accepted.any():
        _drop(segmentation, ACCEPTED_ROLE)
    else:
        _keep(segmentation, volume, ACCEPTED_ROLE, accepted.astype(np.uint8), "accepted")
    segmentation.SetAttribute(MODEL_ATTRIBUTE, model)
    spans = [[[part.start, part.stop] for part in region] for region in regions]
    segmentation.SetAttribute(REGIONS_ATTRIBUTE, json.dumps(spans) if spans else None)


def shown_regions(segmentation: Any) -> list[Region]:
    """Return the parts of the volume that the model was shown; empty where it was shown the whole."""
    text = segmentation.GetAttribute(REGIONS_ATTRIBUTE)
    return [(slice(*k), slice(*j), slice(*i)) for k, j, i in json.loads(text)] if text else []


def with_region(regions: Sequence[Region], region: Region) -> list[Region]:
    """Return ``regions`` and one more, without those that it touches."""
    return [*(other for other in regions if not _overlap(other, region)), region]


def _overlap(one: Region, other: Region) -> bool:
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(one, other, strict=True))


def predicted_by(segmentation: Any) -> str:
    """Return the name of the model that a segmentation comes from; empty if it is none of ours."""
    if segmentation is None or segmentation.GetNodeReference(PREDICTION_ROLE) is None:
        return ""
    return segmentation.GetAttribute(MODEL_ATTRIBUTE) or ""


def prediction(segmentation: Any, volume: Any) -> Array:
    """Return what the model predicted, on the grid of the volume.

    Raises
    ------
    ImageError
        If there is no prediction, or it was made on another grid.
    """
    node = segmentation.GetNodeReference(PREDICTION_ROLE)
    if node is None:
        raise ImageError(
            f"'{segmentation.GetName()}' does not come from a model.",
            "Press Segment first, then correct its result.",
        )
    return _read(node, segmentation, volume).astype(np.int32)


def accepted(segmentation: Any, volume: Any) -> Array | None:
    """Return where the user marked the segmentation right, or None if nowhere."""
    node = segmentation.GetNodeReference(ACCEPTED_ROLE)
    return None if node is None else _read(node, segmentation, volume) > 0


def accept_region(segmentation: Any, volume: Any, roi: Any) -> Region:
    """Mark everything within an ROI as right, and return its voxels.

    Raises
    ------
    ImageError
        If there is no result to accept, no ROI, or the ROI lies elsewhere.
    """
    if roi is None:
        raise ImageError("No region is chosen.", "Draw an ROI around what is right.")
    shape = prediction(segmentation, volume).shape
    region = region_of_roi(roi, volume)
    mask = accepted(segmentation, volume)
    mask = np.zeros(shape, bool) if mask is None else mask
    mask[region] = True
    _keep(segmentation, volume, ACCEPTED_ROLE, mask.astype(np.uint8), "accepted")
    return region


def clear_accepted(segmentation: Any) -> None:
    """Accept nothing any more."""
    _drop(segmentation, ACCEPTED_ROLE)


def _keep(segmentation: Any, volume: Any, role: str, array: Array, what: str) -> None:
    node = segmentation.GetNodeReference(role)
    if node is None:
        node = slicer.vtkMRMLLabelMapVolumeNode()
        node.SetName(f"{segmentation.GetName()} {what}")
        node.SetHideFromEditors(True)
        node = segmentation.GetScene().AddNode(node)
        segmentation.SetNodeReferenceID(role, node.GetID())
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))


def _drop(segmentation: Any, role: str) -> None:
    node = segmentation.GetNodeReference(role)
    if node is not None:
        segmentation.SetNodeReferenceID(role, None)
        segmentation.GetScene().RemoveNode(node)


def _read(node: Any, segmentation: Any, volume: Any) -> Array:
    array = slicer.util.arrayFromVolume(node)
    shape = volume.GetImageData().GetDimensions()[::-1]
    if array.shape != shape or not np.allclose(ijk_to_ras(node), ijk_to_ras(volume), atol=1e-4):
        raise ImageError(
            f"'{segmentation.GetName()}' was made from an image of {array.shape[::-1]} voxels, "
            f"'{volume.GetName()}' has {shape[::-1]} or lies elsewhere.",
            "Choose the volume that was segmented, or segment this one.",
        )
    return array
