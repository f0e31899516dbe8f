"""Putting folders in place whole or not at all, one process at a time, and mending what a kill left.

A new folder is filled under a hidden name, synced and renamed. The one it replaces is renamed to
``.retired-NAME`` first: whoever comes next puts it back if the new one never arrived.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from xlstm_unet.errors import OutputError

LOCK_SECONDS = 120.0
"""How long a process waits for another one that writes to the same folder."""

_PARTIAL, _RETIRED = ".partial-bundle-", ".retired-"
_PARTIAL_NAME = re.compile(rf"{re.escape(_PARTIAL)}[a-z0-9_]{{8}}")
_LOCKS = 64
"""Lock files in all: folders share them by a digest of their path, so that none are left lying about."""


def user_folder() -> Path:
    """Return the folder of what the user keeps: ``XLSTM_UNET_HOME`` if that is set."""
    home = os.environ.get("XLSTM_UNET_HOME")
    if home:
        return Path(home).expanduser()
    from platformdirs import user_data_dir

    return Path(user_data_dir("xlstm-unet", appauthor=False))


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Keep other processes and threads from changing the folders in ``home``; not to be nested.

    Where no lock can be had (a read-only home) the work goes on without: every step is whole by itself.

    Raises
    ------
    OutputError
        If another process does not let go of it within `LOCK_SECONDS`.
    """
    from filelock import FileLock, Timeout

    number = int(hashlib.sha256(os.fsencode(os.path.realpath(home))).hexdigest(), 16) % _LOCKS
    folder = user_folder() / "locks"
    lock = FileLock(folder / f"{number:02d}.lock", timeout=LOCK_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise OutputError(
            f"Another process is writing to {home} and does not end.",
            "Wait for it, or end it.",
        ) from None
    except OSError:
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextmanager
def atomic_folder(folder: Path, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give a new folder beside ``folder``; on success it is synced and takes its place.

    Parameters
    ----------
    folder
        Where it goes; a folder that is there is replaced.
    check
        Called once nobody else can write here: what it raises ends the work before anything is changed.

    Raises
    ------
    OutputError
        If it cannot be written or the disk is full; what was there stays.
    """
    with locked(folder.parent):
        _mend(folder.parent)
        if check is not None:
            check()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=_PARTIAL))
        except OSError as error:
            raise OutputError(
                f"Cannot write to {folder.parent}: {error.strerror}.", "Choose another folder."
            ) from error
        try:
            partial.chmod(0o755)
            yield partial
            for path in (*partial.iterdir(), partial):
                sync(path)
            _put_in_place(partial, folder)
            sync(folder.parent)
        except OSError as error:
            raise OutputError(
                f"Could not write {folder}: {error.strerror or error}.",
                "Free some space or choose another folder.",
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def mend(home: Path) -> None:
    """Put back folders that a killed process had set aside, and remove what it left half-written."""
    if _leftovers(home):
        with locked(home):
            _mend(home)


def sync(path: Path) -> None:
    """Have a file or folder written to the disk itself."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _leftovers(home: Path) -> list[Path]:
    found = []
    with suppress(OSError), os.scandir(home) as entries:
        for entry in entries:
            known = _PARTIAL_NAME.fullmatch(entry.name) or entry.name.startswith(_RETIRED)
            if known and entry.is_dir(follow_symlinks=False):
                found.append(Path(entry.path))
    return found


def _mend(home: Path) -> None:
    """What `mend` does, by whoever holds the lock: nobody else is writing, so all of it is left over."""
    for path in _leftovers(home):
        with suppress(OSError):
            target = home / path.name.removeprefix(_RETIRED)
            if path.name.startswith(_RETIRED) and not target.exists():
                path.rename(target)
            else:
                shutil.rmtree(path)


def _put_in_place(partial: Path, folder: Path) -> None:
    if not folder.exists():
        partial.rename(folder)
        return
    retired = folder.with_name(_RETIRED + folder.name)
    folder.rename(retired)
    try:
        partial.rename(folder)
    except BaseException:
        retired.rename(folder)
        raise
    shutil.rmtree(retired, ignore_errors=True)
