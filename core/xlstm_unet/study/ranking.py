"""Putting compared networks in order: means over seeds, gains with intervals, score per second."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from xlstm_unet.measure import bootstrap_interval
from xlstm_unet.study.report import table

SHOWN = ("f1_50", "ap_50_95")


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
        By arm: number of runs; mean and standard deviation over runs of F1 at IoU .5, of AP and of their
        average (``score``); means by modality; the gain over the first arm, image by image, where both have
        been trained from the same seeds, as an `Interval`; costs; and ``score_per_cpu_second``.
    """
    names = list(dict.fromkeys(result["arm"] for result in results))
    runs = {name: [result for result in results if result["arm"] == name] for name in names}
    return {name: _arm(runs[name], runs[names[0]], costs.get(name, {})) for name in names}


def _arm(runs: list[dict[str, Any]], first: list[dict[str, Any]], costs: dict[str, float]) -> dict[str, Any]:
    values = {metric: [mean(_values(run, metric)) for run in runs] for metric in SHOWN}
    values["score"] = [mean(pair) for pair in zip(*values.values(), strict=True)]
    summary: dict[str, Any] = {"runs": len(runs)}
    for metric, numbers in values.items():
        spread = stdev(numbers) if len(numbers) > 1 else float("nan")
        summary[metric] = {"mean": mean(numbers), "sd": spread}
    summary["modalities"] = {
        modality: {metric: mean(mean(_values(run, metric, modality)) for run in runs) for metric in SHOWN}
        for modality in sorted({image["modality"] for image in runs[0]["images"] if image["modality"]})
    }
    seeds = {run["seed"] for run in runs} & {run["seed"] for run in first}
    if runs is not first and seeds:
        summary["gain"] = {
            metric: bootstrap_interval(_over(runs, metric, seeds), _over(first, metric, seeds))
            for metric in SHOWN
        }
    summary.update(costs)
    if costs:
        summary["score_per_cpu_second"] = summary["score"]["mean"] / costs["cpu_seconds"]
    return summary


_COLUMNS = (
    "Network",
    "Runs",
    "F1 (IoU .5)",
    "AP (.5:.95)",
    "Gain in F1",
    "Gain in AP",
    "Parameters",
    "Step (s)",
    "CPU (s)",
    "Score per CPU s",
)


def markdown(report: dict[str, Any]) -> list[str]:
    """Return the blocks of ``compare.md``."""
    arms: dict[str, dict[str, Any]] = report["arms"]
    modalities = list(next(iter(arms.values()))["modalities"])
    blocks = [
        f"# Networks compared on {report['dataset']}, {report['split']}",
        f"{report['steps']} training steps each, on {report['machine']['name']}. Means and standard "
        "deviations over seeds; gains over the first network are means over images, averaged over seeds, "
        "with 95 % bootstrap intervals. Step: one training step, alone on the device. CPU: the network alone "
        "on 512 x 512 pixels with two threads of the same machine's processor. Score: mean of F1 and AP.",
        table(_COLUMNS, [_row(name, arm) for name, arm in arms.items()]),
    ]
    if modalities:
        by_modality = [(name, *_modality_cells(arm, modalities)) for name, arm in arms.items()]
        blocks += ["## F1 (IoU .5) / AP (.5:.95) by modality", table(("Network", *modalities), by_modality)]
    return blocks


def _row(name: str, arm: dict[str, Any]) -> tuple[object, ...]:
    gain = arm.get("gain", {})
    return (
        name,
        arm["runs"],
        *(f"{arm[metric]['mean']:.3f} ± {arm[metric]['sd']:.3f}" for metric in SHOWN),
        *(gain.get(metric) for metric in SHOWN),
        arm.get("parameters"),
        arm.get("step_seconds"),
        arm.get("cpu_seconds"),
        arm.get("score_per_cpu_second"),
    )


def _modality_cells(arm: dict[str, Any], modalities: list[str]) -> list[str]:
    means = arm["modalities"]
    return [" / ".join(f"{means[name][metric]:.3f}" for metric in SHOWN) for name in modalities]


def _values(run: dict[str, Any], metric: str, modality: str | None = None) -> list[float]:
    return [float(image[metric]) for image in run["images"] if modality in (None, image["modality"])]


def _over(runs: list[dict[str, Any]], metric: str, seeds: set[int]) -> list[float]:
    """Mean over some seeds, image by image."""
    columns = [_values(run, metric) for run in runs if run["seed"] in seeds]
    return [mean(column) for column in zip(*columns, strict=True)]
