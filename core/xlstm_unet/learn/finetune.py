"""Fine-tuning a model on a user's corrections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.learn.replay import ReplayPack
from xlstm_unet.nets import Network
from xlstm_unet.progress import Cancel
from xlstm_unet.spec import ModelSpec

OnEvent = Callable[[Mapping[str, Any]], None]


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


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned network and how it compares with its root."""

    spec: ModelSpec
    network: Network
    """float32, on the CPU, in evaluation mode; it has learnt from all corrections."""
    held_out: Comparison | None
    """On corrected objects that it had not learnt from yet; None where there are too few."""
    check: Comparison | None
    """On the check part of the replay pack; None without a pack."""
    verdict: Literal["keep", "warn", "refuse", "too-few"]
    message: str
    steps: int
    best_step: int
    seconds: float
    seconds_per_step: float
    curve: tuple[dict[str, Any], ...]
    counts: dict[str, int]
    device: str
    notes: tuple[str, ...]


def finetune(
    spec: ModelSpec,
    network: Network,
    corrections: Sequence[Corrections],
    *,
    budget: float | None = None,
    steps: int | None = None,
    replay: ReplayPack | None = None,
    options: FineTuneOptions | None = None,
    device: str = "auto",
    on_event: OnEvent | None = None,
    cancel: Cancel | None = None,
    stop: Cancel | None = None,
) -> FineTuned:
    """Fine-tune a root model on corrections of one or several images.

    Parameters
    ----------
    spec, network
        The root model; it stays as it is.
    corrections
        One entry an image.
    budget
        Seconds that all of it may take; with neither ``budget`` nor ``steps``: 60.
    steps
        Number of steps instead: the same result bit for bit on the same CPU.
    replay
        The root's replay pack; without it forgetting is neither prevented nor measured.
    options
        How; the defaults are what users get.
    on_event
        Called with ``{"event": "step" | "scores" | "note", ...}`` (see ``docs/worker-protocol.md``).
    cancel, stop
        Asked several times a second: give up with `CancelledError`, or end now with the best so far.
    """
    raise NotImplementedError
