"""The front's end of the worker: requests that never block, and a cancel that always works.

Needs numpy and the standard library only.
"""

from __future__ import annotations

import collections
import itertools
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.progress import OnProgress
from xlstm_unet.worker.connection import Connection
from xlstm_unet.worker.errors import MemoryShortageError, WorkerError
from xlstm_unet.worker.job import Job, JobState
from xlstm_unet.worker.protocol import Array

START_SECONDS = 120.0
CANCEL_SECONDS = 1.0
CLOSE_SECONDS = 2.0


class WorkerClient:
    """A worker process that starts when it is needed and starts again after a crash.

    Requests return at once; a thread of the client's starts the worker and sends them in order. Everything
    may be called from any thread. Arrays are read when they are sent: leave them as they are until then.

    Parameters
    ----------
    command
        Program and arguments of the worker: another interpreter, or
        ``["ssh", "-T", "-o", "BatchMode=yes", host, "xlstm-unet", "worker"]``. Default: this interpreter.
    env
        Whole environment of the worker; None passes on this one's.

    Examples
    --------
    >>> import numpy as np
    >>> with WorkerClient() as client:  # doctest: +SKIP
    ...     job = client.request("segment", {"model": "nuclei"}, {"image": np.zeros((64, 64))}, print)
    ...     labels = job.result().arrays["labels"]
    """

    def __init__(self, command: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command) if command else [sys.executable, "-P", "-m", "xlstm_unet.worker"]
        self.env = env
        self._numbers = itertools.count(1)
        self._changed = threading.Condition()
        self._outbox: collections.deque[Callable[[], None]] = collections.deque()
        self._jobs: set[Job] = set()
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def start(self, timeout: float = START_SECONDS) -> dict[str, Any]:
        """Start the worker now, wait until it is ready, and return its hello.

        Raises
        ------
        WorkerError
            If it cannot be started.
        TimeoutError
            If it takes longer than ``timeout`` seconds.
        """
        return self.request("hello").result(timeout).values

    @property
    def hello(self) -> dict[str, Any]:
        """What the running worker said first (versions, devices, models); empty if none runs."""
        connection = self._connection
        return dict(connection.hello) if connection is not None and connection.alive else {}

    @property
    def pid(self) -> int | None:
        """Process id of the running worker (of ssh for a remote one)."""
        connection = self._connection
        return connection.process.pid if connection is not None and connection.alive else None

    def stderr_tail(self, lines: int = 20) -> str:
        """Return the last lines that the worker wrote to stderr."""
        connection = self._connection
        return "" if connection is None else connection.process.stderr_tail(lines)

    def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        arrays: Mapping[str, Array] | None = None,
        on_progress: OnProgress | None = None,
    ) -> Job:
        """Send a request as soon as the worker is ready; returns at once.

        Parameters
        ----------
        method
            Name of a method of the worker ("segment", "decode", "list_models", ...).
        params
            Its parameters, of types that JSON can hold.
        arrays
            Its arrays, of boolean, integer or real numbers.
        on_progress
            Called with each `Progress`, on a thread of the client's.

        Raises
        ------
        WorkerError
            If the client has been closed. Every other error comes from `Job.result`.
        """
        job = Job(next(self._numbers), method, params or {}, arrays or {}, on_progress, self._cancel)
        with self._changed:
            if self._closed:
                raise WorkerError("The worker's client has been closed.", "Make a new WorkerClient.")
            self._jobs.add(job)
            self._outbox.append(partial(self._submit, job))
            self._wake()
        job.add_done_callback(self._jobs.discard)
        return job

    def close(self) -> None:
        """Cancel every job and end the worker, within about two seconds; may be called twice."""
        with self._changed:
            self._closed = True
            self._outbox.clear()
            connection = self._connection
            self._changed.notify_all()
        if connection is not None:
            connection.close(CLOSE_SECONDS)
        for job in list(self._jobs):
            job.finish(error=CancelledError("The worker was closed."))
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(CLOSE_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._send_all, name="worker-stdin", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _send_all(self) -> None:
        while True:
            with self._changed:
                while not self._outbox and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                send = self._outbox.popleft()
            send()

    def _submit(self, job: Job) -> None:
        try:
            connection = self._connection_for(job)
            if connection is None:
                return
            message = {"type": "request", "id": job.id, "method": job.method, "params": job.params}
            connection.send(message, job.arrays)
        except Exception as error:  # an array that cannot be computed, or has no room, ends its job only
            if self._connection is not None:
                self._connection.discard(job)
            job.finish(error=_as_known(error))
        with self._changed:
            if job.state is JobState.SENDING:
                job.state = JobState.RUNNING

    def _connection_for(self, job: Job) -> Connection | None:
        """Return a running worker that has taken ``job``, or None if it has been cancelled."""
        while True:
            connection = self._connected()
            with self._changed:
                if job.done or job.cancel_requested:
                    return None
                if connection.add(job):  # else it ended between its hello and now: start the next
                    job.state = JobState.SENDING
                    return connection

    def _connected(self) -> Connection:
        with self._changed:
            if self._closed:
                raise CancelledError("The worker was closed.")
            connection = self._connection
            if connection is None or not connection.alive:
                connection = self._connection = Connection(self.command, self.env)
        connection.wait_hello(START_SECONDS)
        return connection

    def _cancel(self, job: Job) -> None:
        with self._changed:
            if job.done or job.cancel_requested:
                return
            state, job.cancel_requested = job.state, True
            uploading = state is JobState.SENDING and bool(job.arrays)
            if state is not JobState.QUEUED and not uploading:
                self._outbox.appendleft(partial(self._send_cancel, job))
                self._wake()
        if state is JobState.QUEUED:
            job.finish(error=CancelledError())
        elif uploading:
            self._kill_for(job)
        else:
            timer = threading.Timer(CANCEL_SECONDS, self._kill_for, [job])
            timer.daemon = True
            job.add_done_callback(lambda _: timer.cancel())
            timer.start()

    def _send_cancel(self, job: Job) -> None:
        connection = self._connection
        if connection is not None and connection.owns(job):
            connection.send({"type": "cancel", "id": job.id})

    def _kill_for(self, job: Job) -> None:
        """Kill the worker that does not end ``job``, and start the next."""
        connection = self._connection
        if connection is None or not connection.owns(job):
            return
        reason = f"The worker was restarted because {job.method!r} was cancelled and did not stop."
        connection.kill(WorkerError(reason, "Try again."))
        job.finish(error=CancelledError())
        with self._changed:
            if not self._closed:
                self._outbox.append(self._start_ahead)
                self._wake()

    def _start_ahead(self) -> None:
        try:
            self._connected()
        except XLSTMUNetError:
            return  # the next request tries again and reports it


def _as_known(error: Exception) -> XLSTMUNetError:
    if isinstance(error, XLSTMUNetError):
        return error
    text = f"The request could not be sent ({type(error).__name__}: {error})."
    if isinstance(error, MemoryError):
        return MemoryShortageError(text, "Choose a smaller region.")
    return WorkerError(text, "Check the image.")
