"""Running a method over samples, and averaging what comes out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import DatasetError, ModelError
from xlstm_unet.images import Image
from xlstm_unet.learn import Dataset, Sample
from xlstm_unet.measure import Interval, bootstrap_interval, score_instances
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment import Segmenter

Diameter = float | Literal["auto", "none"]
Method = Callable[[Image], NDArray[np.int32]]
METRICS = ("f1_50", "f1_75", "f1_90", "ap_50", "ap_50_95", "pq")


@dataclass(frozen=True, eq=False)
class Scored:
    """One sample, segmented and scored.

    Parameters
    ----------
    sample
        Image and truth.
    labels
        Prediction on the image's grid.
    scores
        Values by metric, with ``n_true`` and ``n_pred``.
    seconds
        Time the method took.
    """

    sample: Sample
    labels: NDArray[np.int32]
    scores: dict[str, float]
    seconds: float


def some_samples(dataset: Dataset, split: str) -> Sequence[Sample]:
    """Return the samples of a split.

    Raises
    ------
    DatasetError
        If there is none.
    """
    samples = dataset.split(split)
    if not samples:
        raise DatasetError(f"{dataset.name} has no samples in split {split!r}.", "Choose another --split.")
    return samples


def model_method(
    segmenter: Segmenter,
    *,
    diameter: Diameter = "auto",
    mirror: bool | None = None,
    cancel: Cancel | None = None,
) -> Method:
    """Return a model with its settings as a method.

    Parameters
    ----------
    segmenter
        A model of instances.
    diameter
        Object diameter in pixels; "auto" estimates it for each image, "none" takes images as they are.
    mirror
        Average over mirrored copies; None: as the model says.
    cancel
        Asked several times a second.

    Raises
    ------
    ModelError
        If the model does not find instances.
    """
    spec = segmenter.spec
    if spec.task != "instances":
        raise ModelError(
            f"{spec.name} finds {spec.task}, expected a model of instances.", "Score it with `evaluate`."
        )
    given = {"auto": None, "none": spec.object_diameter}.get(str(diameter), diameter)
    return lambda image: segmenter(image, diameter=_number(given), mirror=mirror, cancel=cancel).labels


def score_method(
    method: Method,
    samples: Sequence[Sample],
    *,
    stage: str = "images",
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> list[Scored]:
    """Segment and score samples one by one.

    Parameters
    ----------
    method
        Maps an image to labels.
    samples
        With the truth.
    stage
        What progress calls it.
    on_progress, cancel
        Called for every sample.
    """
    rows = []
    for done, sample in enumerate(samples):
        check_cancelled(cancel)
        started = perf_counter()
        labels = method(sample.image)
        seconds = perf_counter() - started
        rows.append(Scored(sample, labels, asdict(score_instances(labels, sample.labels)), seconds))
        if on_progress is not None:
            on_progress(Progress(stage, done + 1, len(samples)))
    return rows


def by_modality(rows: Sequence[Scored]) -> dict[str, list[int]]:
    """Return the numbers of the rows of each modality, in order of name; empty where there are no names."""
    names = sorted({row.sample.modality for row in rows if row.sample.modality})
    return {name: [i for i, row in enumerate(rows) if row.sample.modality == name] for name in names}


def average(rows: Sequence[Scored], baseline: Sequence[Scored] | None = None) -> dict[str, Any]:
    """Average every metric over images, with bootstrap intervals, overall and for each modality.

    Parameters
    ----------
    rows
        Scores.
    baseline
        Scores of another method on the same samples: the result is the mean of ``rows - baseline``.

    Returns
    -------
    dict
        ``overall`` and each modality under ``modalities``: ``images``, and an `Interval` by metric.
    """
    return {
        "overall": _intervals(rows, baseline),
        "modalities": {
            name: _intervals(
                [rows[i] for i in chosen], None if baseline is None else [baseline[i] for i in chosen]
            )
            for name, chosen in by_modality(rows).items()
        },
    }


def _intervals(rows: Sequence[Scored], baseline: Sequence[Scored] | None) -> dict[str, int | Interval]:
    result: dict[str, int | Interval] = {"images": len(rows)}
    for metric in METRICS:
        other = None if baseline is None else [row.scores[metric] for row in baseline]
        result[metric] = bootstrap_interval([row.scores[metric] for row in rows], other)
    return result


def _number(value: float | str | None) -> float | None:
    return None if value is None else float(value)
