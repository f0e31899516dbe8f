"""Progress of long work: what callbacks receive, and how work asks whether to stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from xlstm_unet.errors import CancelledError


@dataclass(frozen=True)
class Progress:
    """One step of running work.

    Parameters
    ----------
    stage
        What is being done, in a word or two ("network", "decoding").
    done, total
        Steps finished and steps in all, for this stage.
    values
        What else there is to say, of types that JSON can hold.
    """

    stage: str
    done: int
    total: int
    values: Mapping[str, Any] = field(default_factory=dict)


OnProgress = Callable[[Progress], None]
Cancel = Callable[[], bool]


def check_cancelled(cancel: Cancel | None) -> None:
    """Raise `CancelledError` if ``cancel`` says so."""
    if cancel is not None and cancel():
        raise CancelledError
