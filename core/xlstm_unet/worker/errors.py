"""Errors of the worker and of the way to it; those that a model raises keep their own type."""

from __future__ import annotations

from typing import ClassVar

from xlstm_unet.errors import XLSTMUNetError


class WorkerError(XLSTMUNetError):
    """Something went wrong in the worker or on the way to it."""

    code: ClassVar[str] = "worker"


class ProtocolError(WorkerError):
    """A message that does not follow the protocol: unknown method or field, wrong size, garbage."""

    code = "protocol"


class WorkerStartError(WorkerError):
    """The worker could not be started."""

    code = "worker-start"


class VersionMismatchError(WorkerStartError):
    """The worker is of another version."""

    code = "worker-version"


class WorkerCrashedError(WorkerError):
    """The worker process ended before it answered.

    Parameters
    ----------
    message, hint
        As for every error.
    exit_code
        Exit status of the process, negative for a signal; None if it is not known.
    stderr
        Last lines that the process wrote.
    """

    code = "worker-crashed"

    def __init__(self, message: str, hint: str = "", exit_code: int | None = None, stderr: str = "") -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
        self.stderr = stderr


class InternalError(WorkerError):
    """An error in the worker that nobody foresaw."""

    code = "internal"


class MemoryShortageError(WorkerError):
    """The worker could not get the memory that the work needs."""

    code = "memory"


class HandleError(WorkerError):
    """Maps that are no longer kept."""

    code = "handle"


def _subclasses(base: type[XLSTMUNetError]) -> list[type[XLSTMUNetError]]:
    return [base, *(cls for child in base.__subclasses__() for cls in _subclasses(child))]


def error_of_code(code: str, message: str, hint: str) -> XLSTMUNetError:
    """Return the error that a worker reported, as the type that raised it there.

    An unknown code gives a plain `WorkerError`.
    """
    for cls in _subclasses(XLSTMUNetError):
        if cls.code == code:
            return cls(message, hint)
    return WorkerError(message, hint)
