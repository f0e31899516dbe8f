"""A new model for segments that the model in use does not know: its data set, and the command."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import slicer
import slicer.util

from xlstm_unet.errors import ImageError, OutputError
from XLSTMUNetLib.mrml import ijk_to_ras, read_volume
from XLSTMUNetLib.segments import Label, find_segment, read_labels, segments_of, unknown_segments


def export_for_training(segmentation: Any, volume: Any, labels: Sequence[Label], folder: Path) -> list[str]:
    """Write a volume and all its segments into a data set, beside what is there already.

    Parameters
    ----------
    segmentation, volume
        The nodes.
    labels
        What the model in use knows; its values stay, the other segments come after them.
    folder
        Data set: ``images/`` and ``labels/`` with NIfTI files of one name.

    Returns
    -------
    names
        Names of the classes, in the order of their values.

    Raises
    ------
    ImageError
        If there is no segment that the model does not know.
    OutputError
        If a file cannot be written.
    """
    unknown = unknown_segments(segmentation, labels)
    if not unknown:
        raise ImageError("The model knows every segment.", "Fine-tune it on your corrections instead.")
    read_volume(volume, copy=False)
    array = read_labels(segmentation, volume, labels)
    names = [_name(segmentation, label) for label in labels]
    for segment_id in unknown:
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment_id, volume) > 0
        names.append(segmentation.GetSegmentation().GetSegment(segment_id).GetName())
        array[mask] = len(names)
    stem = _free_stem(folder, volume.GetName())
    _write(volume, folder / "images" / f"{stem}.nii.gz")
    node = slicer.vtkMRMLLabelMapVolumeNode()
    slicer.util.updateVolumeFromArray(node, array.astype(np.int16))
    node.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(ijk_to_ras(volume)))
    _write(node, folder / "labels" / f"{stem}.nii.gz")
    return names


def training_command(folder: Path, model: str, names: Sequence[str], minutes: int = 60) -> str:
    """Return the command that trains a new model from an old one."""
    words = ["xlstm-unet", "train", str(folder), "--from", model, "--labels", ",".join(names)]
    return shlex.join([*words, "--name", f"{model}-new", "--minutes", str(minutes)])


def _name(segmentation: Any, label: Label) -> str:
    segment_id = find_segment(segmentation, label)
    shown = {sid: segment.GetName() for sid, segment in segments_of(segmentation)}
    return shown.get(segment_id, label.name) if segment_id is not None else label.name


def _free_stem(folder: Path, name: str) -> str:
    clean = "".join(c if c.isalnum() or c in "-_" else "_" for c in name) or "volume"
    taken = {path.name for path in (folder / "images").glob("*.nii.gz")}
    number, stem = 1, clean
    while f"{stem}.nii.gz" in taken:
        number += 1
        stem = f"{clean}_{number}"
    return stem


def _write(node: Any, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(file))
    if not storage.WriteData(node):
        raise OutputError(f"{file} could not be written.", "Choose another folder.")
