"""Reading files that came from elsewhere: plain files only, of bounded size, strict JSON."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any, NoReturn

from xlstm_unet.errors import BundleError

MAX_WEIGHTS_BYTES = 4 * 2**30
"""Largest file of weights."""


def check_plain_file(path: Path, limit: int) -> int:
    """Return the size of ``path`` in bytes if it is a plain file of at most ``limit`` bytes.

    Raises
    ------
    BundleError
        If it is missing, a link, a device or a pipe, or larger than ``limit``.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        raise BundleError(
            f"{path.parent} has no {path.name}.", "A model is a folder with model.json and model.safetensors."
        ) from None
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(
            f"{path} is not a plain file (a link, perhaps).", "Copy the file itself into the folder."
        )
    if status.st_size > limit:
        raise BundleError(f"{path} has {status.st_size} bytes, expected at most {limit}.")
    return status.st_size


def read_plain_file(path: Path, limit: int) -> bytes:
    """Return the content of a plain file of at most ``limit`` bytes; see `check_plain_file`."""
    check_plain_file(path, limit)
    try:
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    if len(content) > limit:
        raise BundleError(f"{path} grew beyond {limit} bytes while it was read.")
    return content


def read_text(path: Path, limit: int) -> str:
    """Return a plain UTF-8 file of at most ``limit`` bytes; an empty string where there is none."""
    if not path.exists() and not path.is_symlink():
        return ""
    try:
        return read_plain_file(path, limit).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{path} is not UTF-8 text (byte {error.start}).") from error


def printable(text: str) -> str:
    """Return text from elsewhere without what a terminal would obey."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def parse_json_object(content: bytes, source: str) -> dict[str, Any]:
    """Return the JSON object in ``content``; ``source`` names it in errors.

    Stricter than the standard: no duplicate keys, no NaN or infinity.

    Raises
    ------
    BundleError
        If it is not such an object.
    """
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse)
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # refuses halves of surrogate pairs
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise BundleError(f"{source} holds a {type(value).__name__}, expected an object.")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate field {next(name for name in names if names.count(name) > 1)!r}")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
