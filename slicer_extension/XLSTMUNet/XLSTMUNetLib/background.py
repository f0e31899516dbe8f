"""From the worker's threads to Slicer's: a queue that a timer empties."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable
from typing import Protocol

INTERVAL_MS = 30
"""How often the timer should fire while work runs."""

_BUSY_SECONDS = 0.02
_YIELD_SECONDS = 0.002

_log = logging.getLogger(__name__)


class Timer(Protocol):
    """What is needed of a ``qt.QTimer`` that calls `Background.drain`."""

    def start(self) -> None:
        """Fire again and again."""

    def stop(self) -> None:
        """Fire no more."""


class Background:
    """Calls posted by any thread, run on the thread that calls `drain`.

    The timer runs only while something is expected: between `expect` and `release`.
    """

    def __init__(self) -> None:
        self.timer: Timer | None = None
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._expected = 0

    def post(self, call: Callable[[], None]) -> None:
        """Have ``call`` run by the next `drain`; from any thread."""
        self._calls.put(call)

    def expect(self) -> None:
        """Start the timer: a thread is going to post something."""
        self._expected += 1
        if self.timer is not None:
            self.timer.start()

    def release(self) -> None:
        """Expect one thing less; the timer stops at the last."""
        self._expected = max(self._expected - 1, 0)
        if self.timer is not None and not self._expected:
            self.timer.stop()

    @property
    def expecting(self) -> bool:
        """Whether work is under way."""
        return self._expected > 0

    def drain(self) -> None:
        """Run what was posted, for about a fiftieth of a second at most; the rest waits for the next time."""
        time.sleep(
            _YIELD_SECONDS
        )  # lets the threads of the worker's client run where the application would not
        until = time.monotonic() + _BUSY_SECONDS
        while time.monotonic() < until:
            try:
                call = self._calls.get_nowait()
            except queue.Empty:
                return
            try:
                call()
            except Exception:  # one failed call must not keep the others waiting
                _log.exception("xLSTM-UNet: showing a result failed")
