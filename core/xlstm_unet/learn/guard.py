"""Whether a fine-tuned model is better, and whether it forgot: scores before and after, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from xlstm_unet.measure import bootstrap_interval

Verdict = Literal["keep", "warn", "refuse", "too-few"]

REFUSE_POINTS, WARN_POINTS = 3.0, 1.0
"""Points lost on the check part: refused, or warned of, where the whole interval is beyond."""
FEWEST = 15
"""Corrected objects below which keeping some back to judge by means little."""
_RESAMPLES = 4000


@dataclass(frozen=True)
class Comparison:
    """A score before and after, over ``count`` objects or patches; ``low`` and ``high`` bound the change."""

    name: str
    count: int
    before: float
    after: float
    change: float
    low: float
    high: float


def compare(name: str, before: Sequence[float], after: Sequence[float]) -> Comparison | None:
    """Compare paired scores; None where there are none.

    Parameters
    ----------
    name
        What is scored.
    before, after
        Score of each object or patch, 0 to 1, in the same order.
    """
    if not before:
        return None
    interval = bootstrap_interval(after, before, resamples=_RESAMPLES)
    count = len(before)
    mean = sum(before) / count, sum(after) / count
    return Comparison(name, count, *mean, interval.mean, interval.low, interval.high)


def judge(held_out: Comparison | None, check: Comparison | None, judged: int) -> tuple[Verdict, str]:
    """Return the verdict and why, in a sentence.

    Parameters
    ----------
    held_out
        On corrections kept back; None where there were too few.
    check
        On the check part of the replay pack; None without a pack.
    judged
        Number of corrected objects in all.
    """
    if check is not None:
        lost = f"On images like those it was trained on it lost {-100 * check.change:.1f} points"
        if -100 * check.high > REFUSE_POINTS:
            return "refuse", f"{lost} (at least {-100 * check.high:.1f}): it forgot too much."
        if -100 * check.high > WARN_POINTS:
            return "warn", f"{lost} (at least {-100 * check.high:.1f})."
    if held_out is None:
        return "too-few", f"{judged} corrected objects are too few to judge; look at the result yourself."
    moved = f"from {100 * held_out.before:.0f} to {100 * held_out.after:.0f} points"
    if held_out.high < 0:
        return "warn", f"On corrections kept back it became worse: {moved}."
    if check is None:
        return (
            "warn",
            f"On corrections kept back: {moved}. Without a replay pack nobody knows what it forgot.",
        )
    return "keep", f"On corrections kept back: {moved}; what it knew before changed by {_points(check)}."


def _points(comparison: Comparison) -> str:
    return f"{100 * comparison.change:+.1f} points"
