"""How long a fine-tuning may take, and how far it is."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

_TIMED = 3
"""First steps, which are slower, that the estimate leaves out."""


@dataclass
class Clock:
    """How far a run is: by steps, or by the time that is left for them.

    Parameters
    ----------
    started
        `time.monotonic` at the start of everything.
    budget, steps
        Seconds for everything, or steps to take; the other is None.
    training_from
        `time.monotonic` at the first step.
    reserve
        Seconds at the end that are not for steps.
    done
        Steps taken.
    times
        Seconds of each.
    """

    started: float
    budget: float | None
    steps: int | None
    training_from: float = 0.0
    reserve: float = 0.0
    done: int = 0
    times: list[float] = field(default_factory=list)

    @property
    def seconds_per_step(self) -> float:
        """Median, without the first ones; 0 before the first."""
        usual = sorted(self.times[_TIMED:] or self.times)
        return usual[len(usual) // 2] if usual else 0.0

    def planned(self) -> int:
        """Steps in all, estimated under a budget."""
        if self.steps is not None:
            return self.steps
        left = self._deadline() - time.monotonic()
        return self.done + max(0, math.floor(left / max(self.seconds_per_step, 1e-6)))

    def share(self) -> float:
        """Share of the steps that is done, 0 to 1."""
        if self.steps is not None:
            return self.done / self.steps
        now = time.monotonic()
        return (now - self.training_from) / max(self._deadline() - self.training_from, 1e-6)

    def over(self) -> bool:
        """Whether another step would be too many or too late; under a budget there is always one."""
        if self.steps is not None:
            return self.done >= self.steps
        return self.done > 0 and time.monotonic() + self.seconds_per_step > self._deadline()

    def left(self) -> float:
        """Seconds until everything is done, as it looks now."""
        if self.steps is None:
            return max(0.0, self._deadline() + self.reserve - time.monotonic())
        return (self.steps - self.done) * self.seconds_per_step + self.reserve

    def _deadline(self) -> float:
        assert self.budget is not None
        return self.started + self.budget - self.reserve
