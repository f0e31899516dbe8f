"""How well a model segments a split of a data set, beside Otsu's threshold with a watershed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from xlstm_unet.learn import Dataset
from xlstm_unet.progress import Cancel, OnProgress
from xlstm_unet.segment import Segmenter
from xlstm_unet.study.baselines import otsu_watershed
from xlstm_unet.study.pictures import write_sheet
from xlstm_unet.study.report import machine, table, write_json, write_text
from xlstm_unet.study.scoring import (
    Diameter,
    Scored,
    average,
    by_modality,
    model_method,
    score_method,
    some_samples,
)

BASELINE = "Otsu + watershed"

_COLUMNS = (
    "Images",
    "Number",
    "F1 (IoU .5)",
    "AP (.5:.95)",
    "AP (.5)",
    "PQ",
    "Otsu F1",
    "Otsu AP",
    "Gain in F1",
)


def measure_accuracy(
    segmenter: Segmenter,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    diameter: Diameter = "auto",
    mirror: bool | None = None,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Score a model and write ``accuracy.json``, ``accuracy.md`` and ``pictures/<modality>.png``.

    Parameters
    ----------
    segmenter
        A model of instances.
    dataset, split
        Samples to score.
    folder
        Where the report is written.
    diameter, mirror
        As for `model_method`.
    on_progress, cancel
        Called for every image.

    Returns
    -------
    dict
        What ``accuracy.json`` holds: settings, scores overall and for each modality with bootstrap
        intervals over images, the same for the baseline, the paired gain over it, seconds, and each image.

    Raises
    ------
    DatasetError
        If there is no sample.
    ModelError
        If the model does not find instances.
    OutputError
        If the report cannot be written.
    """
    samples = some_samples(dataset, split)
    method = model_method(segmenter, diameter=diameter, mirror=mirror, cancel=cancel)
    method(samples[0].image)  # The first call is slower.
    rows = score_method(method, samples, stage=segmenter.name, on_progress=on_progress, cancel=cancel)
    others = score_method(otsu_watershed, samples, stage=BASELINE, on_progress=on_progress, cancel=cancel)
    seconds = [row.seconds for row in rows]
    result = {
        "model": segmenter.name,
        "dataset": dataset.name,
        "split": split,
        "settings": {"diameter": diameter, "mirror": segmenter.spec.mirror if mirror is None else mirror},
        "machine": machine(segmenter.device),
        **average(rows),
        "baseline": {"name": BASELINE, **average(others)},
        "gain": average(rows, others),
        "seconds": {"mean": float(np.mean(seconds)), "median": float(np.median(seconds))},
        "images": [_image(row, other) for row, other in zip(rows, others, strict=True)],
    }
    write_json(folder / "accuracy.json", result)
    write_text(folder / "accuracy.md", *_markdown(result))
    for name, chosen in by_modality(rows).items() or [(dataset.name, range(len(rows)))]:
        write_sheet(folder / "pictures" / f"{name}.png", [rows[i] for i in chosen])
    return result


def _markdown(result: dict[str, Any]) -> list[str]:
    settings, where = result["settings"], result["machine"]
    return [
        f"# {result['model']} on {result['dataset']}, {result['split']}",
        f"Means over images with 95 % bootstrap intervals. Object diameter: {settings['diameter']}; "
        f"mirrored: {'yes' if settings['mirror'] else 'no'}. "
        f"{result['seconds']['mean']:.2f} s an image (median {result['seconds']['median']:.2f}) on "
        f"{where['name']}, {where['threads']} threads.",
        table(_COLUMNS, _rows(result)),
        "AP = TP / (TP + FP + FN). The gain is the mean of paired differences to Otsu's threshold with a "
        "watershed of the distance map. Pictures: truth on the left, prediction on the right.",
    ]


def _rows(result: dict[str, Any]) -> list[tuple[object, ...]]:
    """One row a modality and one over all images."""
    parts: list[tuple[str, ...]] = [("modalities", name) for name in result["modalities"]] + [("overall",)]
    rows = []
    for part in parts:
        ours, theirs, gain = (_part(scores, part) for scores in (result, result["baseline"], result["gain"]))
        rows.append(
            (
                part[-1],
                ours["images"],
                *(ours[metric] for metric in ("f1_50", "ap_50_95", "ap_50", "pq")),
                *(theirs[metric].mean for metric in ("f1_50", "ap_50_95")),
                gain["f1_50"],
            )
        )
    return rows


def _part(scores: dict[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    for key in keys:
        scores = scores[key]
    return scores


def _image(row: Scored, other: Scored) -> dict[str, Any]:
    return {
        "id": row.sample.id,
        "modality": row.sample.modality,
        **row.scores,
        "seconds": row.seconds,
        "baseline_f1_50": other.scores["f1_50"],
        "baseline_ap_50_95": other.scores["ap_50_95"],
    }
