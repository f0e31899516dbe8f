"""Table and plots of a study of corrections."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_unet.files import atomic_path
from xlstm_unet.study.finetune_arms import OURS, find_arm
from xlstm_unet.study.report import table, write_json, write_text

_NAMES = {"f1_50": "F1 (IoU .5)", "dice": "Dice"}
_COLUMNS = (
    "Arm", "Users", "Corrections", "Steps", "CPU seconds", "After", "Gain", "Against ours", "Source drop"
)  # fmt: skip
_TIMED = ("quarter", "half", OURS)


def write_report(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Sum up the runs, write JSON, Markdown and plot, and return the result with its ``summary``.

    Parameters
    ----------
    folder
        Where they go.
    result
        ``protocol``, ``metric``, ``machine``, ``images``, ``root`` and ``runs``.

    Raises
    ------
    OutputError
        If a file cannot be written.
    """
    whole = {**result, "summary": summarise(result)}
    write_json(folder / "finetune.json", whole)
    write_text(folder / "finetune.md", *_markdown(whole))
    if find_spec("matplotlib") is not None:
        draw(folder / "finetune.png", whole)
    return whole


def summarise(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Mean and standard deviation over users, by arm and round; scores are means over images.

    ``against_ours`` compares, after the last round, with the same users of the arm "ours".

    Parameters
    ----------
    result
        ``root`` and ``runs``.
    """
    target, source = (_mean(result["root"][part]) for part in ("target", "source"))
    arms = list(dict.fromkeys(run["arm"] for run in result["runs"]))
    last = {(run["arm"], run["user"]): _mean(run["rounds"][-1]["target"]) for run in result["runs"]}
    summary = {}
    for arm in arms:
        runs = [run for run in result["runs"] if run["arm"] == arm]
        rounds = zip(*(run["rounds"] for run in runs), strict=True)
        summary[arm] = [_round(rows, target, source) for rows in rounds]
        users = [run["user"] for run in runs if (OURS, run["user"]) in last]
        summary[arm][-1]["against_ours"] = _spread([last[arm, user] - last[OURS, user] for user in users])
    return summary


def _round(rows: Sequence[dict[str, Any]], target: float, source: float) -> dict[str, Any]:
    after = [_mean(row["target"]) for row in rows]
    dropped = [source - _mean(row["source"]) for row in rows]
    return {
        "users": len(rows),
        **{
            name: _mean([row[name] for row in rows])
            for name in ("corrections", "images", "wrong", "steps", "seconds", "cpu_seconds")
        },
        "after": _spread(after),
        "gain": _spread([value - target for value in after]),
        "source_drop": _spread(dropped),
    }


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and standard deviation over users; None where there are too few, which JSON can say."""
    known = [value for value in values if np.isfinite(value)]
    return {
        "mean": _mean(known) if known else None,
        "sd": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }


def _markdown(result: dict[str, Any]) -> list[str]:
    protocol, images, where = result["protocol"], result["images"], result["machine"]
    target, source = (_mean(result["root"][part]) for part in ("target", "source"))
    before = f"{_NAMES[result['metric']]} before: {target:.3f} on {images['target']} images to learn"
    if images["source"]:
        before += f", {source:.3f} on {images['source']} images of the root's own domain"
    return [
        f"# {protocol['title'] or protocol['name']}",
        f"Root model {Path(protocol['model']).name}; corrections on "
        f"{protocol['pool']['split']} images, scores on {protocol['target']['split']} images of "
        f"{protocol['target']['dataset']}. {before}. Means over simulated users, standard deviation in "
        f"brackets; {where['name']}, threads: {where['threads']}.",
        table(_COLUMNS, [_row(arm, rounds[-1]) for arm, rounds in result["summary"].items()]),
        "Round by round:" if len(result["summary"][OURS]) > 1 else "",
        table(_COLUMNS, [_row(OURS, row) for row in result["summary"][OURS]])
        if len(result["summary"][OURS]) > 1
        else "",
    ]


def _row(arm: str, row: dict[str, Any]) -> tuple[object, ...]:
    found = find_arm(arm)
    return (
        f"{arm}: {found.title}",
        row["users"],
        f"{row['corrections']:.1f}",
        f"{row['steps']:.0f}",
        f"{row['cpu_seconds']:.0f}",
        _cell(row["after"]),
        _cell(row["gain"]),
        _cell(row["against_ours"]) if arm != OURS and "against_ours" in row else "",
        _cell(row["source_drop"]),
    )


def _cell(spread: dict[str, float | None]) -> str:
    if spread["mean"] is None:
        return "-"
    return f"{spread['mean']:.3f}" + ("" if spread["sd"] is None else f" ({spread['sd']:.3f})")


def draw(path: Path, result: dict[str, Any]) -> None:
    """Draw the score against corrections and against seconds.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    summary, before = result["summary"], _mean(result["root"]["target"])
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _curve(left, [0.0, *(row["corrections"] for row in summary[OURS])], before, summary[OURS], OURS)
    for arm, rounds in summary.items():
        last = rounds[-1]
        if find_arm(arm).dense != "no":
            style = "--" if find_arm(arm).dense == "some" else ":"
            left.axhline(last["after"]["mean"], linestyle=style, linewidth=1, color="gray", label=arm)
        elif arm not in _TIMED:
            left.plot(last["corrections"], last["after"]["mean"], marker="x", linestyle="", label=arm)
    timed = [summary[arm][-1] for arm in _TIMED if arm in summary]
    _curve(right, [0.0, *(row["cpu_seconds"] for row in timed)], before, timed, OURS)
    left.set(xlabel="corrections", ylabel=_NAMES[result["metric"]], ylim=(0, 1))
    right.set(xlabel="CPU seconds of fine-tuning")
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.suptitle(result["protocol"]["title"] or result["protocol"]["name"], fontsize=10)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _curve(
    axes: Any, places: Sequence[float], before: float, rows: Sequence[dict[str, Any]], label: str
) -> None:
    """A line from the root's score over means, with one standard deviation around it."""
    means = np.array([before, *(row["after"]["mean"] for row in rows)])
    deviations = np.array([0.0, *(row["after"]["sd"] or 0.0 for row in rows)])
    (line,) = axes.plot(places, means, marker="o", label=label)
    axes.fill_between(places, means - deviations, means + deviations, alpha=0.15, color=line.get_color())
