"""Where the worker runs: Slicer's own Python, another Python, or another machine."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from xlstm_unet.errors import ConfigError
from XLSTMUNetLib.core import core_folders

_WORKER = ["-P", "-m", "xlstm_unet.worker"]
_SSH = ["ssh", "-T", "-o", "BatchMode=yes"]


class Kind(StrEnum):
    """Kinds of workplaces; the values are what the settings store."""

    SLICER = "slicer"
    PYTHON = "python"
    REMOTE = "remote"


@dataclass(frozen=True)
class Workplace:
    """A choice of the user's.

    Parameters
    ----------
    kind
        Where.
    python
        Interpreter, for `Kind.PYTHON`.
    remote
        ``user@host``, or a whole command, for `Kind.REMOTE`.
    """

    kind: Kind = Kind.SLICER
    python: str = ""
    remote: str = ""

    def command(self, slicer_python: str) -> list[str]:
        """Return the command that starts the worker.

        Parameters
        ----------
        slicer_python
            Slicer's own interpreter, ``PythonSlicer``.

        Raises
        ------
        ConfigError
            If the interpreter or host is missing or cannot be one.
        """
        if self.kind is Kind.SLICER:
            return [slicer_python, *_WORKER]
        if self.kind is Kind.PYTHON:
            if not os.path.isfile(self.python):
                raise ConfigError(
                    f"There is no Python at {self.python!r}.", "Choose the interpreter under Set-up."
                )
            return [self.python, *_WORKER]
        try:
            words = shlex.split(self.remote)
        except ValueError as error:
            raise ConfigError(f"The remote command {self.remote!r} cannot be read: {error}.") from error
        if not words or words[0].startswith("-"):
            raise ConfigError(
                f"The remote is {self.remote!r}, expected user@host or a command.", "Write it under Set-up."
            )
        return words if len(words) > 1 else [*_SSH, words[0], "xlstm-unet", "worker"]

    def environment(self, slicer: Mapping[str, str], startup: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of the worker.

        Slicer's own Python needs Slicer's environment; any other program breaks in it (PYTHONHOME,
        LD_LIBRARY_PATH) and gets the one that Slicer was started with.

        Parameters
        ----------
        slicer, startup
            Environment of Slicer, and the one that Slicer was started in.
        """
        if self.kind is Kind.REMOTE:
            return dict(startup)
        base = dict(slicer if self.kind is Kind.SLICER else startup)
        folders = [str(folder) for folder in core_folders()]
        if self.kind is Kind.SLICER and base.get("PYTHONPATH"):
            folders.append(base["PYTHONPATH"])
        return {**base, "PYTHONPATH": os.pathsep.join(folders)}

    def describe(self) -> str:
        """Return in a sentence what this choice means."""
        if self.kind is Kind.SLICER:
            return "The worker runs in Slicer's own Python, as a process of its own."
        if self.kind is Kind.PYTHON:
            return (
                f"The worker runs with {self.python or 'a Python that you choose'}; Slicer's stays as it is."
            )
        target = self.remote or "user@host"
        return f"Images travel to {target} through ssh and segments come back; nothing else is needed here."
