"""Writing files whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlstm_unet.errors import OutputError


@contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it is synced and takes the name ``path``.

    On any error the temporary file is removed and ``path`` stays as it was.

    Raises
    ------
    OutputError
        If the folder cannot be written to or the disk is full.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-", suffix="-" + path.name)
        os.close(handle)
    except OSError as error:
        raise OutputError(
            f"Cannot write to {path.parent}: {error.strerror}.", "Choose another folder."
        ) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(
            f"Could not write {path}: {error.strerror or error}.", "Free some space or choose another folder."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)
