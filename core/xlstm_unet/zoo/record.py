"""What the store notes about a model that it keeps: where it came from, and whether it is pinned.

The note lies in the model's folder as ``store.json``. It is never part of the model: it is not shared, and
one that comes from elsewhere is not taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlstm_unet.errors import BundleError
from xlstm_unet.files import atomic_path
from xlstm_unet.zoo.untrusted import parse_json_object, read_plain_file

RECORD = "store.json"
_MAX_BYTES = 2**16

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """Where a model was fetched from."""

    repo: str
    """``owner/name`` on the Hub."""
    revision: str
    """The commit that was fetched."""
    requested: str
    """The branch, tag or commit that was asked for."""
    endpoint: str
    """Address of the Hub."""
    fetched: str
    """When, ISO 8601, UTC."""


class Pushed(_Part):
    """Where a model was last pushed to."""

    repo: str
    revision: str
    pushed: str
    """When, ISO 8601, UTC."""


class Record(_Part):
    """The store's note on one model."""

    version: Literal[1] = 1
    source: Source | None = None
    files: dict[str, Sha256] = {}
    """SHA-256 of each file as it came."""
    pinned: bool = False
    pushed: Pushed | None = None


def read_record(folder: Path) -> Record:
    """Read the store's note on the model in ``folder``; an empty one where there is none.

    Raises
    ------
    BundleError
        If it is damaged.
    """
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return Record()
    try:
        return Record.model_validate(parse_json_object(read_plain_file(path, _MAX_BYTES), str(path)))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise BundleError(f"{path} is damaged at {field!r}.", "Fetch the model again.") from error


def write_record(folder: Path, record: Record) -> None:
    """Write the store's note on the model in ``folder``.

    Raises
    ------
    OutputError
        If it cannot be written; the earlier one stays.
    """
    with atomic_path(folder / RECORD) as temporary:
        temporary.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
