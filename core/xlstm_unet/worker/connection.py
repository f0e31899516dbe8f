"""One running worker and the jobs that it has been given."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from xlstm_unet import __version__
from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.progress import Progress
from xlstm_unet.worker.errors import (
    MemoryShortageError,
    ProtocolError,
    VersionMismatchError,
    WorkerStartError,
    error_of_code,
)
from xlstm_unet.worker.job import Job
from xlstm_unet.worker.process import WorkerProcess
from xlstm_unet.worker.protocol import (
    MAGIC,
    PROTOCOL_VERSION,
    EndOfStreamError,
    Header,
    MessageReader,
    MessageWriter,
    Reply,
    encode,
    excerpt,
)


class Connection:
    """A worker process, its hello, and the jobs it owes an answer.

    Parameters
    ----------
    command, env
        As for `WorkerProcess`.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None) -> None:
        self.process = WorkerProcess(command, env)
        self.hello: dict[str, Any] = {}
        self._reader = MessageReader(self.process.stdout)
        self._writer = MessageWriter(self.process.stdin)
        self._printed = b""
        self._lock = threading.Lock()
        self._jobs: dict[int, Job] = {}
        self._greeted = threading.Event()
        self._failure: XLSTMUNetError | None = None
        self._closing = False
        self.alive = True
        self._thread = threading.Thread(target=self._read, name="worker-stdout", daemon=True)
        self._thread.start()

    def wait_hello(self, timeout: float) -> dict[str, Any]:
        """Wait for the worker's first message and return it.

        Raises
        ------
        WorkerError
            If it does not come in time, is of another version or is no hello at all.
        """
        if not self._greeted.wait(timeout):
            message = f"The worker has not answered within {timeout:.0f} s. {self.process.stderr_tail(3)}"
            hint = "Check the interpreter or command in the settings, then try again."
            self.kill(WorkerStartError(message.strip(), hint))
            self._greeted.wait()
        if self._failure is not None:
            raise self._failure
        return self.hello

    def add(self, job: Job) -> bool:
        """Take a job that is about to be sent; False if the worker is gone."""
        with self._lock:
            if self.alive:
                self._jobs[job.id] = job
            return self.alive

    def send(self, message: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
        """Write a message; a worker that is gone ends its jobs by itself.

        Raises
        ------
        ProtocolError
            If the message cannot be sent; nothing has been written then. Whatever making the arrays raises
            is passed on as well.
        """
        line, payload = encode(message, arrays or {})
        try:
            self._writer.write(line, payload)
        except (OSError, ValueError):  # broken or closed pipe: the reading thread sees the end as well
            self.process.kill()

    def owns(self, job: Job) -> bool:
        """Whether the worker owes an answer to ``job``."""
        with self._lock:
            return job.id in self._jobs

    def discard(self, job: Job) -> None:
        """Owe a job no answer any more."""
        with self._lock:
            self._jobs.pop(job.id, None)

    def kill(self, reason: XLSTMUNetError) -> None:
        """End the worker at once; its jobs end with ``reason``. Returns immediately."""
        self._fail(reason)
        self.process.kill()

    def close(self, grace_s: float) -> None:
        """Close the worker's stdin, which ends it, and kill it if it has not ended within ``grace_s``."""
        deadline = time.monotonic() + grace_s
        self._closing = True
        self._fail(CancelledError("The worker was closed."))
        if self._writer.lock.acquire(timeout=grace_s / 4):
            try:
                self.process.stdin.close()
            finally:
                self._writer.lock.release()
        if self._thread is threading.current_thread():  # closed from a job's callback
            self.process.kill()
            return
        self._thread.join(max(deadline - time.monotonic(), 0))
        if self._thread.is_alive():
            self.process.kill()
            self._thread.join(grace_s)

    def _fail(self, error: XLSTMUNetError) -> None:
        with self._lock:
            self.alive = False
            if self._failure is None:
                self._failure = error

    def _read(self) -> None:
        try:
            self._greet()
            while True:
                self._dispatch(self._reader.read_header())
        except EndOfStreamError as end:
            self._printed = end.args[0]
        except OSError:
            pass
        except XLSTMUNetError as error:
            self._fail(error)
        except MemoryError:
            self._fail(
                MemoryShortageError("There is no memory for the worker's result.", "Choose a smaller region.")
            )
        except (KeyError, TypeError, ValueError) as error:
            self._fail(ProtocolError(f"The worker sent a message that cannot be read ({error!r})."))
        self._end()

    def _greet(self) -> None:
        self._reader.skip_to_hello()
        header = self._reader.read_header()
        fields = header.fields
        if header.type == "error":
            message, hint = str(fields.get("message")), str(fields.get("hint", ""))
            raise WorkerStartError(f"The worker could not start: {message}", hint)
        theirs = fields.get("protocol"), str(fields.get("version"))
        if theirs[0] != PROTOCOL_VERSION or _series(theirs[1]) != _series(__version__):
            raise VersionMismatchError(
                f"The worker is xlstm-unet {theirs[1]} (protocol {theirs[0]}), "
                f"this is xlstm-unet {__version__} (protocol {PROTOCOL_VERSION}).",
                "Install the same version at both ends.",
            )
        if header.type != "hello" or fields.get("magic") != MAGIC or header.payload_bytes:
            raise ProtocolError(f"Expected the worker's hello, found a message of type {header.type!r}.")
        self.hello = fields
        self._greeted.set()

    def _dispatch(self, header: Header) -> None:
        arrays = self._reader.read_payload(header.check())
        fields = header.fields
        if header.id is None:  # an error that belongs to no request: the worker cannot go on
            raise ProtocolError(f"The worker refused the stream: {fields.get('message')}")
        with self._lock:
            job = self._jobs.get(header.id)
        if job is None:
            return
        if header.type == "progress":
            stage, values = str(fields["stage"]), dict(fields.get("values", {}))
            job.report(Progress(stage, int(fields["done"]), int(fields["total"]), values))
            return
        if header.type == "result":
            job.finish(Reply(dict(fields["values"]), arrays))
        elif header.type == "cancelled":
            job.finish(error=CancelledError())
        elif header.type == "error":
            texts = (str(fields.get(key, "")) for key in ("code", "message", "hint"))
            job.finish(error=error_of_code(*texts))
        else:
            raise ProtocolError(f"The worker sent a message of type {header.type!r}.")
        self.discard(job)

    def _end(self) -> None:
        if not self._closing and self._failure is not None:
            self.process.kill()
        self.process.reap()
        with self._lock:
            self.alive = False
            jobs, self._jobs = list(self._jobs.values()), {}
        doing = f"while running {jobs[0].method!r}" if jobs else "while idle"
        if not self._greeted.is_set():
            doing = "before it was ready"
            if self._printed.strip():
                doing += f", having printed {excerpt(self._printed)}"
        error = self._failure or self.process.crash(doing)
        self._failure = error
        if self._writer.lock.acquire(timeout=1):  # a writer that is still at it ends by the broken pipe
            try:
                self.process.stdin.close()
            finally:
                self._writer.lock.release()
        self._greeted.set()
        for job in jobs:
            job.finish(error=error)


def _series(version: str) -> list[str]:
    return version.split(".")[:2]
