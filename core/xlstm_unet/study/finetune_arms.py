"""Ways to learn from the same corrections, and ways to make them, that the study compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xlstm_unet.errors import ConfigError

OURS = "ours"
_ALONE = {"replay_share": 0.0, "root_share": 0.0}


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Parameters
    ----------
    name
        Short name.
    title
        In words, for tables.
    options
        Settings of `FineTuneOptions` that differ from the defaults.
    habits
        Settings of `Habits` that differ from the protocol's; such an arm makes its own corrections, the
        others learn from those of "ours".
    dense
        Learn from whole true maps instead: of as many images as the protocol says, or of all.
    untouched
        What pixels count as that nobody touched; ``background`` is the usual mistake.
    start
        Weights to start from: the root's, or new ones.
    share
        Share of the steps or of the budget.
    """

    name: str
    title: str
    options: Mapping[str, Any] = field(default_factory=dict)
    habits: Mapping[str, Any] = field(default_factory=dict)
    dense: Literal["no", "some", "all"] = "no"
    untouched: Literal["ignored", "background"] = "ignored"
    start: Literal["root", "scratch"] = "root"
    share: float = 1.0

    @property
    def corrects(self) -> bool:
        """Whether corrections are made for this arm alone."""
        return bool(self.habits)


ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm(OURS, "as users get it"),
        Arm("quarter", "a quarter of the steps", share=0.25),
        Arm("half", "half of the steps", share=0.5),
        Arm("no-replay", "without replay", {"replay_share": 0.0}),
        Arm("no-mixing", "without the root's share of the weights", {"root_share": 0.0}),
        Arm("background", "untouched counted as background", untouched="background"),
        Arm("norms", "norms only", {"trained": "norms"}),
        Arm("decoder", "decoder only", {"trained": "decoder"}),
        Arm("distillation", "with distillation to the root", {"distillation": 1.0}),
        Arm("scratch", "from scratch, corrections alone", _ALONE, start="scratch"),
        Arm("window", "all of a window corrected, then accepted", habits={"style": "window"}),
        Arm("wrong", "10 % wrong corrections", habits={"wrong": 0.1}),
        Arm("dense", "some whole true maps", dense="some"),
        Arm("dense-all", "all whole true maps of the pool", dense="all"),
    )
}


def find_arm(name: str) -> Arm:
    """Return an arm by its name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if name not in ARMS:
        raise ConfigError(f"There is no arm {name!r}.", f"Choose from {', '.join(ARMS)}.")
    return ARMS[name]
