"""Scoring many images: rows per image, means over all and over groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import XLSTMUNetError
from xlstm_unet.images import Image
from xlstm_unet.measure import score_classes, score_instances
from xlstm_unet.spec import Label

Task = Literal["instances", "classes"]
INSTANCE_SCORES = ("f1_50", "f1_75", "f1_90", "ap_50", "ap_50_95", "pq")
_MM = {"mm": 1.0, "µm": 1e-3, "pixel": 1.0}


@dataclass(frozen=True)
class Scored:
    """Scores of one image.

    Parameters
    ----------
    name
        Stem of the image.
    group
        Modality, or empty.
    scores
        Values by score for instances; by label, then score, for classes.
    """

    name: str
    group: str
    scores: dict[str, Any]


def score(
    name: str,
    prediction: NDArray[np.int32],
    truth: NDArray[np.int32],
    image: Image,
    *,
    task: Task,
    labels: Sequence[Label] = (),
    group: str = "",
) -> Scored:
    """Score one prediction.

    Parameters
    ----------
    name, group
        Kept in the result.
    prediction, truth
        Labels on one grid.
    image
        What carries the spacing.
    task
        ``instances`` or ``classes``.
    labels
        Classes to score.

    Raises
    ------
    XLSTMUNetError
        If they do not fit; the message names the image.
    """
    try:
        if task == "instances":
            return Scored(name, group, asdict(score_instances(prediction, truth)))
        by_label = score_classes(prediction, truth, labels, spacing_mm(image))
    except XLSTMUNetError as error:
        raise type(error)(f"{name}: {error.message}", error.hint) from error
    return Scored(name, group, {label: asdict(scores) for label, scores in by_label.items()})


def spacing_mm(image: Image) -> tuple[float, ...]:
    """Return the spacing of an image in mm, ones where it is not known."""
    steps = image.spacing or (1.0,) * len(image.spatial_axes)
    return tuple(step * _MM[image.unit] for step in steps)


def classes_up_to(largest: int) -> tuple[Label, ...]:
    """Return classes 1 to ``largest``, named by their numbers."""
    return tuple(Label(value=value, name=str(value)) for value in range(1, largest + 1))


def means(rows: Sequence[Scored]) -> dict[str, Any]:
    """Average over images, every image counting the same."""
    first = rows[0].scores
    if not any(isinstance(value, dict) for value in first.values()):
        return {key: float(np.mean([row.scores[key] for row in rows])) for key in INSTANCE_SCORES}
    return {
        label: {key: float(np.mean([row.scores[label][key] for row in rows])) for key in scores}
        for label, scores in first.items()
    }


def group_means(rows: Sequence[Scored]) -> dict[str, Any]:
    """Average over the images of each group, in order of name; empty where there are no groups."""
    names = sorted({row.group for row in rows if row.group})
    return {name: means([row for row in rows if row.group == name]) for name in names}
