"""One request to the worker, seen from the client."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.progress import OnProgress, Progress
from xlstm_unet.worker.protocol import Array, Reply

_log = logging.getLogger(__name__)


class JobState(enum.Enum):
    """Where a request stands."""

    QUEUED = "queued"
    SENDING = "sending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


_FINAL = {JobState.DONE, JobState.FAILED, JobState.CANCELLED}


class Job:
    """Running work with progress, cancel and a result or an error; made by `WorkerClient.request`.

    Every method may be called from any thread. Callbacks run on a thread of the client's (on the caller's
    where the job has already ended): a user interface passes them on to its own thread.
    """

    def __init__(
        self,
        number: int,
        method: str,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array],
        on_progress: OnProgress | None,
        on_cancel: Callable[[Job], None],
    ) -> None:
        self.id = number
        self.method = method
        self.params = dict(params)
        self.arrays = dict(arrays)
        self.state = JobState.QUEUED
        self.progress: Progress | None = None
        self.cancel_requested = False
        self._on_progress = on_progress
        self._on_cancel = on_cancel
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._reply: Reply | None = None
        self._error: XLSTMUNetError | None = None
        self._callbacks: list[Callable[[Job], object]] = []

    @property
    def done(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return self.state in _FINAL

    @property
    def cancelled(self) -> bool:
        """Whether the job ended by being cancelled."""
        return self.state is JobState.CANCELLED

    @property
    def error(self) -> XLSTMUNetError | None:
        """The error that ended the job, if one did."""
        return self._error

    def result(self, timeout: float | None = None) -> Reply:
        """Wait for the end and return the reply (``.values`` and ``.arrays``).

        Raises
        ------
        CancelledError
            If the job was cancelled.
        XLSTMUNetError
            The error that the worker reported, as the type it had there, or a `WorkerError`.
        TimeoutError
            If the job has not ended within ``timeout`` seconds; it goes on.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.method} has not ended within {timeout} s")
        if self._error is not None:
            raise self._error
        assert self._reply is not None
        return self._reply

    def cancel(self) -> None:
        """Ask for the end; the job ends within about a second, by killing the worker if need be."""
        self._on_cancel(self)

    def add_done_callback(self, callback: Callable[[Job], object]) -> None:
        """Call ``callback(job)`` at the end, or now if the job has ended."""
        with self._lock:
            if not self.done:
                self._callbacks.append(callback)
                return
        _call(callback, self)

    def report(self, progress: Progress) -> None:
        """Take a progress message (called by the client)."""
        if not self.done and not self.cancel_requested:
            self.progress = progress
            if self._on_progress is not None:
                _call(self._on_progress, progress)

    def finish(self, reply: Reply | None = None, error: XLSTMUNetError | None = None) -> None:
        """End the job; only the first end counts (called by the client)."""
        with self._lock:
            if self.done:
                return
            if self.cancel_requested and not isinstance(error, CancelledError):
                reply, error = None, CancelledError()
            self._reply, self._error = reply, error
            self.arrays = {}
            if error is None:
                self.state = JobState.DONE
            else:
                cancelled = isinstance(error, CancelledError)
                self.state = JobState.CANCELLED if cancelled else JobState.FAILED
            callbacks, self._callbacks = self._callbacks, []
        self._ended.set()
        for callback in callbacks:
            _call(callback, self)


def _call(callback: Callable[[Any], object], argument: object) -> None:
    try:
        callback(argument)
    except Exception:
        _log.exception("A callback of a worker job failed")
