"""How well a model of classes segments a split of a data set, beside the mean mask of the training split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ModelError
from xlstm_unet.images import Image
from xlstm_unet.learn import Dataset, Sample
from xlstm_unet.measure import bootstrap_interval, score_classes
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import Label
from xlstm_unet.study.pictures import write_pairs
from xlstm_unet.study.report import machine, table, write_json, write_text
from xlstm_unet.study.scoring import some_samples

BASELINE = "mean training mask"
METRICS = ("dice", "nsd_1mm", "hd95_mm")

_MM = {"mm": 1.0, "µm": 1e-3, "pixel": 1.0}
_COLUMNS = ("Label", "Dice", "NSD (1 mm)", "HD95 (mm)", f"Dice of the {BASELINE}", "Gain in Dice")


@dataclass(frozen=True, eq=False)
class ScoredClasses:
    """One sample, segmented and scored: ``scores[label][metric]``."""

    sample: Sample
    labels: NDArray[np.int32]
    scores: dict[str, dict[str, float]]
    seconds: float

    def dice(self) -> float:
        """Mean over the labels."""
        return float(np.mean([scores["dice"] for scores in self.scores.values()]))


def measure_classes(
    segmenter: Segmenter,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    mirror: bool | None = None,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Score a model and write ``accuracy.json``, ``accuracy.md`` and ``pictures/<data set>.png``.

    Every image is segmented as a user's would be, and scored on its own grid. The baseline knows nothing of
    the image but its size: each voxel gets the label that most training images have there, their middles laid
    on each other.

    Parameters
    ----------
    segmenter
        A model of classes.
    dataset, split
        Samples to score; with those of split "train" for the baseline.
    folder
        Where the report is written.
    mirror
        Average over mirrored copies; None: as the model says.
    on_progress, cancel
        Called for every image.

    Returns
    -------
    dict
        What ``accuracy.json`` holds: by label Dice, normalised surface Dice and 95th percentile of the
        surface distance with bootstrap intervals over images, the baseline's, the paired gain, seconds, and
        each image.

    Raises
    ------
    DatasetError
        If there is no sample.
    ModelError
        If the model finds instances.
    OutputError
        If the report cannot be written.
    """
    spec = segmenter.spec
    if spec.task != "classes":
        raise ModelError(f"{spec.name} finds {spec.task}, expected a model of classes.")
    samples, training = some_samples(dataset, split), some_samples(dataset, "train")
    segmenter(samples[0].image, mirror=mirror, cancel=cancel)  # The first call is slower.
    rows, others = [], []
    for done, sample in enumerate(samples):
        check_cancelled(cancel)
        rows.append(score_sample(segmenter, sample, mirror=mirror, cancel=cancel))
        others.append(_scored(sample, mean_mask(training, sample.labels.shape), spec.labels, 0.0))
        if on_progress is not None:
            on_progress(Progress(spec.name, done + 1, len(samples)))
    result = {
        "model": spec.name,
        "dataset": dataset.name,
        "split": split,
        "settings": {"mirror": segmenter.spec.mirror if mirror is None else mirror},
        "machine": machine(segmenter.device),
        "labels": {label.name: _summary(rows, others, label.name) for label in spec.labels},
        "seconds": {
            "mean": float(np.mean([row.seconds for row in rows])),
            "median": float(np.median([row.seconds for row in rows])),
        },
        "images": [_image(row, other) for row, other in zip(rows, others, strict=True)],
    }
    write_json(folder / "accuracy.json", result)
    write_text(folder / "accuracy.md", *_markdown(result))
    _draw(folder / "pictures" / f"{dataset.name}.png", rows)
    return result


def score_sample(
    segmenter: Segmenter, sample: Sample, *, mirror: bool | None = None, cancel: Cancel | None = None
) -> ScoredClasses:
    """Segment a sample as a user's image would be, and score it on its own grid."""
    started = perf_counter()
    found = segmenter(sample.image, mirror=mirror, cancel=cancel).labels
    return _scored(sample, found, segmenter.spec.labels, perf_counter() - started)


def mean_mask(samples: Sequence[Sample], shape: tuple[int, ...]) -> NDArray[np.int32]:
    """Return for every voxel of an image of this size the commonest label of the samples, centred on it."""
    values = 1 + max(int(sample.labels.max()) for sample in samples)
    votes = np.zeros((values, *shape), dtype=np.int32)
    for sample in samples:
        ours, theirs = _overlap(shape, sample.labels.shape)
        for value in range(1, values):
            votes[value][ours] += sample.labels[theirs] == value
    votes[0] = len(samples) - votes[1:].sum(axis=0)
    return np.asarray(votes.argmax(axis=0), dtype=np.int32)


def _overlap(first: tuple[int, ...], second: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Return what two arrays laid middle on middle have in common, in the indices of each."""
    ours, theirs = [], []
    for one, other in zip(first, second, strict=True):
        shift = (one - other) // 2
        start, stop = max(0, shift), min(one, other + shift)
        ours.append(slice(start, stop))
        theirs.append(slice(start - shift, stop - shift))
    return tuple(ours), tuple(theirs)


def _scored(
    sample: Sample, found: NDArray[np.int32], labels: Sequence[Label], seconds: float
) -> ScoredClasses:
    known = np.where(sample.labels < 0, 0, found)
    scores = score_classes(known, np.maximum(sample.labels, 0), labels, _spacing_mm(sample.image))
    return ScoredClasses(sample, found, {name: asdict(one) for name, one in scores.items()}, seconds)


def _spacing_mm(image: Image) -> tuple[float, ...]:
    sides = image.spacing or (1.0,) * len(image.spatial_axes)
    return tuple(side * _MM[image.unit] for side in sides)


def _summary(rows: Sequence[ScoredClasses], others: Sequence[ScoredClasses], label: str) -> dict[str, object]:
    ours = {metric: [row.scores[label][metric] for row in rows] for metric in METRICS}
    theirs = {metric: [row.scores[label][metric] for row in others] for metric in METRICS}
    return {
        **{metric: bootstrap_interval(ours[metric]) for metric in METRICS},
        "lowest_dice": min(ours["dice"]),
        "baseline": {metric: bootstrap_interval(theirs[metric]) for metric in METRICS},
        "gain": bootstrap_interval(ours["dice"], theirs["dice"]),
    }


def _image(row: ScoredClasses, other: ScoredClasses) -> dict[str, Any]:
    baseline = {label: scores["dice"] for label, scores in other.scores.items()}
    return {"id": row.sample.id, "scores": row.scores, "baseline_dice": baseline, "seconds": row.seconds}


def _markdown(result: dict[str, Any]) -> list[str]:
    where, labels = result["machine"], result["labels"]
    images = result["images"]
    overall = [
        (name, *(part[metric] for metric in METRICS), part["baseline"]["dice"].mean, part["gain"])
        for name, part in labels.items()
    ]
    columns = ["Image", *(f"Dice {name}" for name in labels), *(f"HD95 {name} (mm)" for name in labels)]
    single = [
        (
            image["id"],
            *(image["scores"][name][metric] for metric in ("dice", "hd95_mm") for name in labels),
            *(image["baseline_dice"][name] for name in labels),
        )
        for image in images
    ]
    return [
        f"# {result['model']} on {result['dataset']}, {result['split']}",
        f"Means over {len(images)} images with 95 % bootstrap intervals. Mirrored copies averaged: "
        f"{'yes' if result['settings']['mirror'] else 'no'}. {result['seconds']['mean']:.2f} s an image "
        f"(median {result['seconds']['median']:.2f}) on {where['name']}, {where['threads']} threads.",
        table(_COLUMNS, overall),
        "The gain is the mean of paired differences to the mean training mask: each voxel gets the label "
        "that most training images have there, their middles laid on each other.",
        "## Every image",
        table((*columns, *(f"Baseline {name}" for name in labels)), single),
        "Pictures: truth on the left, prediction on the right, in the slice where they mark most.",
    ]


def _draw(path: Path, rows: Sequence[ScoredClasses]) -> None:
    ordered = sorted(rows, key=lambda row: row.dice(), reverse=True)
    places = {len(ordered) - 1: "worst", len(ordered) // 2: "median", 0: "best"}
    pairs = []
    for place, name in sorted(places.items()):
        row = ordered[place]
        area = ((row.labels > 0) | (row.sample.labels > 0)).reshape(len(row.labels), -1).sum(axis=1)
        index = int(area.argmax()) if row.labels.ndim == 3 else slice(None)
        array = row.sample.image.array.reshape(-1, *row.labels.shape)[0][index]
        dice = ", ".join(f"{label} {scores['dice']:.2f}" for label, scores in row.scores.items())
        truth = np.maximum(row.sample.labels[index], 0)
        pairs.append((f"{name}: {row.sample.id}  {dice}", Image(array, "YX"), truth, row.labels[index]))
    write_pairs(path, pairs)
