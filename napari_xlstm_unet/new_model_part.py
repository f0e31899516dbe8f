"""The offer of a new model where labels go beyond those of the chosen one."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.corrections import Draft, region_of
from napari_xlstm_unet.notify import tell, tell_error
from xlstm_unet.errors import DatasetError
from xlstm_unet.files import atomic_path
from xlstm_unet.images import Image, write_labels


@dataclass(frozen=True)
class NewModel:
    """What the user wants.

    Parameters
    ----------
    folder
        Where images and labels are written, to train on.
    name
        Of the new model.
    labels
        Names of its classes, from 1 on.
    """

    folder: Path
    name: str
    labels: tuple[str, ...]

    def command(self, root: str) -> str:
        """Return what to type to train it from ``root``."""
        words = ["xlstm-unet", "train", str(self.folder), "--from", root, "--name", self.name]
        return shlex.join([*words, "--labels", ",".join(self.labels)])


class NewModelPart:
    """Writes the selected result and its image into a folder that `xlstm-unet train --from` takes.

    Parameters
    ----------
    background
        Threads.
    correct
        The part "Correct".
    """

    def __init__(self, background: Background, correct: CorrectPart) -> None:
        self._background = background
        self._correct = correct

    @property
    def root(self) -> str:
        """The model to start from."""
        return self._correct.state.model

    def names(self) -> tuple[str, ...]:
        """Return names for all labels in the selected result, to begin with."""
        result = self._correct.result
        if result is None:
            return ()
        known = [label.name for label in result.outcome.spec.labels]
        highest = max(self._correct.state.beyond, default=len(known))
        return (*known, *(f"label {value}" for value in range(len(known) + 1, highest + 1)))

    def write(self, wanted: NewModel) -> None:
        """Write the selected result as training data; returns at once."""
        result = self._correct.result
        if result is None:
            return
        draft = Draft.of(result)
        self._background.run(
            lambda: _write(draft, wanted),
            lambda count: tell(f"{count} image{'s' * (count != 1)} with labels written to {wanted.folder}."),
            tell_error,
            name="xlstm-unet-new-model",
        )


def _write(draft: Draft, wanted: NewModel) -> int:
    """Write every piece with a label, cut to the region; return how many."""
    task = draft.outcome.task
    for name in ("images", "labels"):
        (wanted.folder / name).mkdir(parents=True, exist_ok=True)
    count = 0
    for index in task.pieces():
        labels = np.ascontiguousarray(task.by_piece(draft.labels)[index]).astype(np.int32)
        if not labels.any():
            continue
        piece = task.read(index)
        region = region_of(task, piece)
        array = piece.array if region is ... else piece.array[(..., *region)]
        image = Image(array, piece.axes, spacing=task.spacing, unit=task.pixels.unit, name=task.image_name)
        stem = "".join(c if c.isalnum() else "_" for c in f"{task.image_name} {task.place(index)}").strip("_")
        _write_image(wanted.folder / "images" / f"{stem}.tif", image)
        write_labels(wanted.folder / "labels" / f"{stem}.tif", labels, like=image)
        count += 1
    if not count:
        raise DatasetError("The result holds no label to learn from.", "Draw some first.")
    return count


def _write_image(path: Path, image: Image) -> None:
    metadata: dict[str, Any] = {"axes": image.axes, "Name": image.name}
    for axis, step in zip(image.spatial_axes, image.spacing or (), strict=False):
        metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": image.unit}
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, image.array, ome=True, photometric="minisblack", metadata=metadata)
