"""What the panel shows, free of Qt and MRML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from XLSTMUNetLib.segments import Label, labels_of_spec


class Phase(StrEnum):
    """What the module is doing."""

    STARTING = "starting"
    READY = "ready"
    SEGMENTING = "segmenting"
    TUNING = "tuning"
    CANCELLING = "cancelling"
    BROKEN = "broken"
    """The worker could not be started; set-up says what to do."""


@dataclass(frozen=True)
class ModelInfo:
    """A model that may be chosen, as ``list_models`` tells it."""

    name: str
    origin: str = "embedded"
    problem: str = ""
    dimension: int = 3
    task: str = "classes"
    labels: tuple[Label, ...] = ()
    field_of_view: dict[str, Any] | None = None
    """Description, extent_mm and max_extent_mm (Z, Y, X) of what the model was shown; None: anything."""

    @classmethod
    def from_summary(cls, entry: dict[str, Any]) -> ModelInfo:
        """Return the model of one entry of ``list_models``."""
        if entry["problem"]:
            return cls(entry["name"], entry["origin"], entry["problem"])
        return cls(
            entry["name"],
            entry["origin"],
            "",
            entry["dimension"],
            entry["task"],
            labels_of_spec(entry),
            entry.get("field_of_view"),
        )


@dataclass
class Tuning:
    """A fine-tuning: the one that runs, or the last one, until it is kept or discarded."""

    losses: list[tuple[float, float]] = field(default_factory=list)
    """Seconds and loss of each step."""
    scores: list[tuple[float, float | None, float | None]] = field(default_factory=list)
    """Seconds, score on held-out corrections, score on the check part."""
    version: dict[str, Any] | None = None
    """The pending version's fields, once there is one."""


@dataclass
class State:
    """Everything that the panel shows.

    Parameters
    ----------
    on_change
        Called after each change, on the application's thread.
    """

    on_change: Callable[[], None] = lambda: None
    phase: Phase = Phase.STARTING
    progress: float = 0.0
    """From 0 to 1."""
    status: str = ""
    models: tuple[ModelInfo, ...] = ()
    devices: tuple[tuple[str, str], ...] = (("auto", "Automatic"),)
    counts: dict[str, int] = field(default_factory=dict)
    """Counts of the corrections, as the worker made them; empty while nothing is corrected."""
    unknown: tuple[str, ...] = ()
    """Names of the segments that the model does not know."""
    tuning: Tuning | None = None
    versions: tuple[dict[str, Any], ...] = ()
    """Fine-tuned models with their versions, as ``list_versions`` tells them."""

    @property
    def busy(self) -> bool:
        """Whether work runs that can be cancelled, or is being cancelled."""
        return self.phase in (Phase.SEGMENTING, Phase.TUNING, Phase.CANCELLING)

    def model(self, name: str) -> ModelInfo | None:
        """Return a model by name, or None."""
        return next((model for model in self.models if model.name == name), None)

    def change(self, **values: Any) -> None:
        """Set attributes, then call ``on_change``."""
        for name, value in values.items():
            setattr(self, name, value)
        self.on_change()
