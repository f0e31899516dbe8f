"""Renaming, pinning and removing the models of the user's store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xlstm_unet.errors import BundleError, ModelError, OutputError
from xlstm_unet.files import atomic_path
from xlstm_unet.zoo.bundle import SPEC, read_spec
from xlstm_unet.zoo.place import locked, sync
from xlstm_unet.zoo.record import Record, read_record, write_record
from xlstm_unet.zoo.store import ModelEntry, find_entry, own_folder, user_models_folder

_REMOVED = ".partial-bundle-removed_"
"""Where a model goes before its files do, so that a kill leaves nothing half removed."""


def rename_model(name: str, new_name: str) -> Path:
    """Give one of the user's models another name; a model of the user's own takes it into ``model.json`` too.

    Raises
    ------
    ModelError
        If it is not the user's, or the new name cannot be had.
    OutputError
        If the folder cannot be written to.
    """
    entry = _stored(name)
    target = own_folder(new_name)
    with locked(user_models_folder()), _writing(entry.folder):
        if target.exists():
            raise ModelError(f"There is a model {new_name!r} already.", "Choose another name, or remove it.")
        if entry.origin == "own" and entry.spec is not None:
            spec = entry.spec.model_copy(update={"name": new_name})
            with atomic_path(entry.folder / SPEC) as temporary:
                temporary.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
            read_spec(entry.folder)
        entry.folder.rename(target)
        sync(target.parent)
    return target


def pin_model(name: str, pinned: bool = True) -> ModelEntry:
    """Hold a model as it is: while pinned it is neither updated nor removed.

    Raises
    ------
    ModelError
        If it is not the user's.
    """
    entry = _stored(name)
    with locked(user_models_folder()):
        try:
            record = read_record(entry.folder)
        except BundleError:
            record = Record()
        write_record(entry.folder, record.model_copy(update={"pinned": pinned}))
    return find_entry(entry.folder.name)


def remove_model(name: str) -> int:
    """Remove one of the user's models, and from the Hub's cache what was fetched for it.

    Returns
    -------
    int
        Bytes that are free again.

    Raises
    ------
    ModelError
        If it comes with the package or is pinned.
    OutputError
        If it cannot be removed.
    """
    entry = _stored(name)
    if entry.pinned:
        raise ModelError(
            f"Model {entry.name!r} is pinned.", f"Let it go first: xlstm-unet models pin {entry.name} --off"
        )
    freed = _bytes_of(entry.folder)
    line = _line_of(entry.folder)
    with locked(user_models_folder()), _writing(entry.folder):
        aside = entry.folder.with_name(_REMOVED)
        if aside.exists():
            shutil.rmtree(aside)
        entry.folder.rename(aside)
        shutil.rmtree(aside)
    if line:
        from xlstm_unet.zoo.versions import remove_versions

        remove_versions(line)
    if entry.source is not None:
        from xlstm_unet.zoo.hub_cache import forget

        freed += forget(entry.source.repo, entry.source.revision)
    return freed


def _stored(name: str) -> ModelEntry:
    entry = find_entry(name)
    if entry.origin == "embedded":
        raise ModelError(
            f"{entry.name!r} comes with the package.",
            "Only models that were fetched or made here can be changed.",
        )
    if entry.folder.parent != user_models_folder():
        raise ModelError(f"{entry.folder} is not in the models folder.", "Move or remove the folder itself.")
    return entry


def _line_of(folder: Path) -> str:
    """Tree of versions that a fine-tuned model belongs to; empty for others."""
    from xlstm_unet.zoo.versions_record import read_version

    try:
        record = read_version(folder)
    except BundleError:
        return ""
    return "" if record is None else record.line


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot change {folder}: {error.strerror or error}.", "Check that the folder may be written to."
        ) from error


def _bytes_of(folder: Path) -> int:
    """Bytes that are free once ``folder`` is gone: files that the Hub's cache holds too are not."""
    statuses = [path.lstat() for path in folder.rglob("*") if not path.is_dir()]
    return sum(status.st_size for status in statuses if status.st_nlink == 1)
