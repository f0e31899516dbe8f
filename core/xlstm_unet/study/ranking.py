"""Putting compared networks in order: means over seeds, gains with intervals, score per second."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from xlstm_unet.measure import bootstrap_interval
from xlstm_unet.study.report import table

SHOWN = {"f1_50": "F1 (IoU .5)", "ap_50_95": "AP (.5:.95)", "dice": "Dice", "nsd_1mm": "NSD (1 mm)"}
"""Scores that are shown, as far as the runs have them: two for instances, two for classes."""


def rank(results: Sequence[dict[str, Any]], costs: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Summarise finished runs by arm, in order of their first run.

    Parameters
    ----------
    results
        Results of runs (see `xlstm_unet.study.compare.finish`).
    costs
        ``parameters``, ``step_seconds`` and ``cpu_seconds`` by arm, where they are known.

    Returns
    -------
    dict
        By arm: number of runs; mean and standard deviation over runs of the two scores that are shown (F1 at
        IoU .5 and AP, or Dice and surface Dice) and of their average (``score``); of the seconds of a
        training; means by modality; the gain over the first arm, image by image, where both have
        been trained from the same seeds, as an `Interval`; costs; and ``score_per_cpu_second``.
    """
    names = list(dict.fromkeys(result["arm"] for result in results))
    runs = {name: [result for result in results if result["arm"] == name] for name in names}
    return {name: _arm(runs[name], runs[names[0]], costs.get(name, {})) for name in names}


def _arm(runs: list[dict[str, Any]], first: list[dict[str, Any]], costs: dict[str, float]) -> dict[str, Any]:
    shown = _shown(runs)
    values = {metric: [mean(_values(run, metric)) for run in runs] for metric in shown}
    values["score"] = [mean(pair) for pair in zip(*values.values(), strict=True)]
    summary: dict[str, Any] = {"runs": len(runs)}
    if all("seconds" in run for run in runs):
        values["train_seconds"] = [float(run["seconds"]) for run in runs]
    for metric, numbers in values.items():
        spread = stdev(numbers) if len(numbers) > 1 else float("nan")
        summary[metric] = {"mean": mean(numbers), "sd": spread}
    summary["modalities"] = {
        modality: {metric: mean(mean(_values(run, metric, modality)) for run in runs) for metric in shown}
        for modality in sorted({image["modality"] for image in runs[0]["images"] if image["modality"]})
    }
    seeds = {run["seed"] for run in runs} & {run["seed"] for run in first}
    if runs is not first and seeds:
        summary["gain"] = {
            metric: bootstrap_interval(_over(runs, metric, seeds), _over(first, metric, seeds))
            for metric in shown
        }
    summary.update(costs)
    if costs:
        summary["score_per_cpu_second"] = summary["score"]["mean"] / costs["cpu_seconds"]
    return summary


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the blocks of ``compare.md``."""
    arms: dict[str, dict[str, Any]] = report["arms"]
    modalities = list(next(iter(arms.values()))["modalities"])
    shown = [metric for metric in SHOWN if metric in next(iter(arms.values()))]
    titles = [SHOWN[metric] for metric in shown]
    columns = (
        "Network",
        "Runs",
        *titles,
        *(f"Gain in {title.split(' (')[0]}" for title in titles),
        "Parameters",
        "Training (s)",
        "Step (s)",
        "CPU (s)",
        "Score per CPU s",
    )
    size = " x ".join(map(str, report.get("inference_size", (512, 512))))
    blocks = [
        f"# Networks compared on {report['dataset']}, {report['split']}",
        f"{report['steps']} training steps each, on {report['machine']['name']}. Means and standard "
        "deviations over seeds; gains over the first network are means over images, averaged over seeds, "
        "with 95 % bootstrap intervals. Training: mean seconds of a run, with validation. Step: one training "
        f"step, alone on the device. CPU: the network alone on {size} voxels with two threads of the same "
        f"machine's processor. Score: mean of {' and '.join(titles)}.",
        table(columns, [_row(name, arm, shown) for name, arm in arms.items()]),
    ]
    if modalities:
        by_modality = [(name, *_modality_cells(arm, modalities, shown)) for name, arm in arms.items()]
        blocks += [f"## {' / '.join(titles)} by modality", table(("Network", *modalities), by_modality)]
    return blocks


def _shown(runs: list[dict[str, Any]]) -> list[str]:
    return [metric for metric in SHOWN if metric in runs[0]["images"][0]]


def _row(name: str, arm: dict[str, Any], shown: Sequence[str]) -> tuple[object, ...]:
    gain = arm.get("gain", {})
    return (
        name,
        arm["runs"],
        *(f"{arm[metric]['mean']:.3f} ± {arm[metric]['sd']:.3f}" for metric in shown),
        *(gain.get(metric) for metric in shown),
        arm.get("parameters"),
        arm.get("train_seconds", {}).get("mean"),
        arm.get("step_seconds"),
        arm.get("cpu_seconds"),
        arm.get("score_per_cpu_second"),
    )


def _modality_cells(arm: dict[str, Any], modalities: list[str], shown: Sequence[str]) -> list[str]:
    means = arm["modalities"]
    return [" / ".join(f"{means[name][metric]:.3f}" for metric in shown) for name in modalities]


def _values(run: dict[str, Any], metric: str, modality: str | None = None) -> list[float]:
    return [float(image[metric]) for image in run["images"] if modality in (None, image["modality"])]


def _over(runs: list[dict[str, Any]], metric: str, seeds: set[int]) -> list[float]:
    """Mean over some seeds, image by image."""
    columns = [_values(run, metric) for run in runs if run["seed"] in seeds]
    return [mean(column) for column in zip(*columns, strict=True)]
