"""What a worker can do: methods, with their parameters, arrays and lanes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from xlstm_unet.errors import CancelledError
from xlstm_unet.progress import Progress
from xlstm_unet.worker.errors import ProtocolError
from xlstm_unet.worker.protocol import Array, ArraySpec, Reply

PROGRESS_SECONDS = 0.05

Lane = Literal["job", "quick", "network"]


class Params(BaseModel):
    """Parameters of a method; unknown ones are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Task:
    """A request that is being worked on: its arrays, progress and cancel.

    Parameters
    ----------
    send_progress
        Sends one progress message.
    """

    def __init__(self, send_progress: Callable[[Progress], None]) -> None:
        self.arrays: dict[str, Array] = {}
        self.started = False
        self._send_progress = send_progress
        self._cancelled = threading.Event()
        self._stage = ""
        self._sent_at = 0.0

    def cancel(self) -> None:
        """Ask the work to stop."""
        self._cancelled.set()

    def cancelled(self) -> bool:
        """Whether the work shall stop; methods hand this on as their ``cancel``."""
        return self._cancelled.is_set()

    def progress(self, progress: Progress) -> None:
        """Pass a step on, at most about twenty a second; the last of a stage, and news, always."""
        if self.cancelled():
            raise CancelledError
        now = time.monotonic()
        new_stage, finished = progress.stage != self._stage, progress.done >= progress.total
        news = progress.values.get("event", "step") != "step"
        if new_stage or finished or news or now - self._sent_at >= PROGRESS_SECONDS:
            self._stage, self._sent_at = progress.stage, now
            self._send_progress(progress)


@dataclass(frozen=True)
class Method:
    """One thing that a worker can do.

    Parameters
    ----------
    name
        What requests call it.
    params
        Its parameters.
    run
        The work: ``run(params, task) -> Reply``.
    arrays
        Names of the arrays that a request must bring.
    lane
        ``job``: one after another; ``quick``: beside a running job, for what takes well under a second;
        ``network``: beside both, one after another, for what waits for other machines.
    optional
        Names of the arrays that it may bring.
    replaces
        Key of the requests that a new one makes pointless: they end as cancelled; None: never.
    """

    name: str
    params: type[Params]
    run: Callable[[Any, Task], Reply]
    arrays: frozenset[str] = field(default_factory=frozenset)
    optional: frozenset[str] = field(default_factory=frozenset)
    lane: Lane = "job"
    replaces: Callable[[Any], str] | None = None

    def check(self, params: object, arrays: tuple[ArraySpec, ...]) -> Params:
        """Return the parameters of a request, checked.

        Raises
        ------
        ProtocolError
            If a parameter is unknown, missing or of the wrong kind, or the arrays are others.
        """
        try:
            checked = self.params.model_validate(params)
        except ValidationError as error:
            raise ProtocolError(f"Method {self.name!r}: {_describe(error)}.") from error
        found = {spec.name for spec in arrays}
        if not self.arrays <= found <= self.arrays | self.optional:
            may = f" and may have {sorted(self.optional)}" if self.optional else ""
            raise ProtocolError(
                f"Method {self.name!r} got the arrays {sorted(found)}, expected {sorted(self.arrays)}{may}."
            )
        return checked


def find(methods: Mapping[str, Method], name: object) -> Method:
    """Return the method called ``name``.

    Raises
    ------
    ProtocolError
        If there is none.
    """
    if not isinstance(name, str) or name not in methods:
        raise ProtocolError(f"Unknown method {name!r}, expected one of {', '.join(sorted(methods))}.")
    return methods[name]


def _describe(error: ValidationError) -> str:
    parts = []
    for detail in error.errors(include_url=False, include_input=True)[:3]:
        place = ".".join(str(step) for step in detail["loc"]) or "params"
        parts.append(f"{place} is {str(detail['input'])[:60]!r}: {detail['msg']}")
    return "; ".join(parts)
