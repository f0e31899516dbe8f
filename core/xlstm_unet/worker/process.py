"""The worker as a child process: starting, ending, and telling why it ended."""

from __future__ import annotations

import collections
import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import cast

from xlstm_unet.worker.errors import WorkerCrashedError, WorkerStartError

STDERR_LINES = 200
LINE_BYTES = 1000
REAP_SECONDS = 2.0

_WINDOWS_FLAGS = sum(
    getattr(subprocess, name, 0) for name in ("CREATE_NO_WINDOW", "BELOW_NORMAL_PRIORITY_CLASS")
)
_EXIT_CODES = {
    126: "the command is not executable",
    127: "the command was not found",
    137: "killed (SIGKILL), most often by the system for lack of memory",
    139: "crashed in native code (SIGSEGV)",
    255: "ssh could not connect, or the connection broke",
    0xC0000005: "crashed in native code (access violation)",
    0xC0000017: "no memory left",
    0xC000013A: "interrupted",
}
_SIGNALS = {
    "SIGKILL": "killed (SIGKILL), most often by the system for lack of memory",
    "SIGSEGV": "crashed in native code (SIGSEGV)",
    "SIGABRT": "aborted by a library (SIGABRT)",
    "SIGBUS": "crashed in native code (SIGBUS)",
    "SIGTERM": "asked to end (SIGTERM)",
}
_MEMORY_HINT = "Choose a smaller region, or a smaller tile, or close other programs; then try again."


def explain_exit(exit_code: int | None) -> str:
    """Return in words how a process ended."""
    if exit_code is None:
        return "it closed its output"
    if exit_code < 0:
        try:
            name = signal.Signals(-exit_code).name
        except ValueError:
            name = f"signal {-exit_code}"
        return _SIGNALS.get(name, f"ended by {name}")
    known = _EXIT_CODES.get(exit_code)
    return f"exit code {exit_code}" + (f": {known}" if known else "")


class WorkerProcess:
    """A started worker process and the last lines of its stderr.

    Parameters
    ----------
    command
        Program and arguments.
    env
        Whole environment of the process; None passes on this one's.

    Raises
    ------
    WorkerStartError
        If the program cannot be started.
    """

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=None if env is None else dict(env),
                creationflags=_WINDOWS_FLAGS,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise WorkerStartError(
                f"Cannot start the worker with {' '.join(command)!r}: {error}.",
                "Check the interpreter or command in the settings.",
            ) from error
        self.stdin = cast("io.FileIO", self._process.stdin)
        self.stdout = cast("io.FileIO", self._process.stdout)
        self._lines: collections.deque[str] = collections.deque(maxlen=STDERR_LINES)
        self._stderr_thread = threading.Thread(target=self._drain_stderr, name="worker-stderr", daemon=True)
        self._stderr_thread.start()

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    def stderr_tail(self, lines: int = 20) -> str:
        """Return the last lines that the process wrote to stderr."""
        return "\n".join(list(self._lines)[-lines:])

    def kill(self) -> None:
        """End the process and its children at once; returns immediately."""
        if self._process.returncode is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:  # not reaped before its output ends, so that the group's number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def reap(self) -> int | None:
        """Wait for the end of a process that has closed its stdout, or kill it; return its exit code."""
        try:
            self._process.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        self.stdout.close()
        self._stderr_thread.join(REAP_SECONDS)
        return self._process.returncode

    def crash(self, doing: str) -> WorkerCrashedError:
        """Return the error that explains the end of the process, after ``reap``."""
        exit_code = self._process.returncode
        tail = self.stderr_tail()
        last = tail.splitlines()[-1:] or [""]
        message = f"The worker ended {doing}: {explain_exit(exit_code)}."
        if last[0].strip():
            message += f" Its last line was: {last[0].strip()}"
        killed = exit_code in (-9, 137, 0xC0000017)
        hint = _MEMORY_HINT if killed else "Try again: the next request starts a new worker."
        return WorkerCrashedError(message, hint, exit_code, tail)

    def _drain_stderr(self) -> None:
        stderr = cast("io.FileIO", self._process.stderr)
        pending = b""
        with stderr:
            while chunk := stderr.read(2**14):
                *lines, pending = (pending + chunk).replace(b"\r", b"\n").split(b"\n")
                self._lines.extend(line[:LINE_BYTES].decode("utf-8", "replace") for line in lines)
                pending = pending[:LINE_BYTES]
        if pending:
            self._lines.append(pending.decode("utf-8", "replace"))
