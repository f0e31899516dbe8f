"""Sentences of the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from XLSTMUNetLib.state import ModelInfo


def model_text(model: ModelInfo | None) -> str:
    """Return what a model finds, and where."""
    if model is None:
        return ""
    names = ", ".join(label.name for label in model.labels[:6]) + (", ..." if len(model.labels) > 6 else "")
    where = f" Expects {model.field_of_view['description']}." if model.field_of_view else ""
    return f"Finds {names}.{where}"


def counts_text(counts: Mapping[str, int]) -> str:
    """Return how much was corrected and accepted."""
    if not counts:
        return "Nothing is corrected yet: change the result with the tools above, or accept a region."
    parts = [
        f"{counts.get('corrected_voxels', 0)} voxels corrected in {counts.get('corrected', 0)} places",
        f"{counts.get('accepted_voxels', 0)} voxels accepted",
    ]
    return "; ".join(parts) + "."


def unknown_text(names: Sequence[str]) -> str:
    """Return what happens to segments that the model does not know."""
    if not names:
        return ""
    return (
        f"The model does not know {', '.join(names)}: fine-tuning leaves it out. "
        "'New model' makes one from this one that knows it."
    )


def comparison(version: Mapping[str, Any] | None) -> str:
    """Return the scores before and after, and the verdict."""
    if version is None:
        return ""
    lines = [str(version["message"])]
    for key, what in (("held_out", "Held-out corrections"), ("check", "What it knew before")):
        score = version["scores"].get(key)
        if score is not None:
            lines.append(
                f"{what}: {score['before']:.3f} before, {score['after']:.3f} after "
                f"(change {score['change']:+.3f}, 95 % from {score['low']:+.3f} to {score['high']:+.3f}; "
                f"{score['name']}, {score['count']})."
            )
    lines.append(f"{version['steps']} steps in {version['seconds']:.0f} s on {version['device']}.")
    return "\n".join(lines)


def version_text(model: Mapping[str, Any], version: Mapping[str, Any]) -> str:
    """Return a version's line in the list."""
    mark = " (in use)" if version["current"] else ""
    what = "as it came" if version["number"] == 0 else f"version {version['number']}"
    return f"{model['name']}: {what}{mark}"
