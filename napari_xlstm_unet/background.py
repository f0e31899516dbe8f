"""Work off the window's thread, with its answers brought back to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

Post = Callable[[Callable[[], None]], None]
"""Runs a function on the window's thread, soon; may be called from any thread."""


class Debounce:
    """Calls a function on the window's thread once nothing has happened for a while.

    Parameters
    ----------
    background
        Brings the call to the window's thread.
    call
        What to call.
    """

    def __init__(self, background: Background, call: Callable[[], None]) -> None:
        self._background = background
        self._call = call
        self._due = 0.0
        self._waiting = False
        self._lock = threading.Lock()

    def poke(self, seconds: float) -> None:
        """Call ``seconds`` from now, unless poked again before."""
        with self._lock:
            self._due = time.monotonic() + seconds
            if self._waiting:
                return
            self._waiting = True
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        timer = threading.Timer(seconds, self._wake)
        timer.daemon = True
        timer.start()

    def _wake(self) -> None:
        with self._lock:
            left = self._due - time.monotonic()
            self._waiting = left > 0
        if left > 0:
            self._wait(left)
        else:
            self._background.post(self._call)


class Background:
    """Runs functions on threads; what they return or raise is handed over on the window's thread.

    Parameters
    ----------
    post
        Brings a call to the window's thread.
    """

    def __init__(self, post: Post) -> None:
        self._post = post
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether nothing is handed over any more."""
        return self._closed

    def close(self) -> None:
        """Drop everything that has not been handed over."""
        self._closed = True

    def post(self, call: Callable[[], None]) -> None:
        """Run ``call`` on the window's thread, unless this has been closed by then."""
        if not self._closed:
            self._post(lambda: None if self._closed else call())

    def run(
        self,
        work: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        name: str,
    ) -> None:
        """Call ``work`` on a thread of its own, then ``done`` or ``failed`` on the window's."""

        def body() -> None:
            try:
                result = work()
            except Exception as error:
                caught = error
                self.post(lambda: failed(caught))
            else:
                self.post(lambda: deliver(result))

        def deliver(result: T) -> None:
            try:
                done(result)
            except Exception as error:  # the window must learn of it, and not stay busy for ever
                failed(error)

        threading.Thread(target=body, name=name, daemon=True).start()
