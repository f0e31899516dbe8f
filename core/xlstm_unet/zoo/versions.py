"""Versions of fine-tuned models: a tree below each root, on disk, with undo.

::

    versions/                  below the user's data folder
        pending/<id>/          fine-tuned, not yet kept: a bundle with version.json, and its root/
        <line>/0/              copy of the root
        <line>/1/, 2/ ...      kept versions, never changed again
    models/<name>/             copy of the version that is current: what every front loads

Every step renames a folder that is whole. A kill between two steps leaves a version that is kept and not
current, never half a one.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_unet.errors import BundleError, GuardError, ModelError, OutputError, VersionNotFoundError
from xlstm_unet.files import atomic_path
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.finetune import FineTuned
from xlstm_unet.zoo.bundle import CARD, SPEC, read_bundle, read_spec, write_bundle
from xlstm_unet.zoo.place import atomic_folder, sync, user_folder
from xlstm_unet.zoo.record import RECORD as STORE_RECORD
from xlstm_unet.zoo.record import read_record
from xlstm_unet.zoo.store import find_model, own_folder, user_models_folder
from xlstm_unet.zoo.versions_card import tuned_card
from xlstm_unet.zoo.versions_record import RECORD, VersionRecord, bundle_digest, read_version

PENDING_DAYS = 7
LOCK_SECONDS = 30.0
_ID = re.compile("[0-9a-f]{16}")
_ROOM = 8
"""Times a root's size that fine-tuning and keeping take: float32 weights, and copies of the root."""
_ROOT = "root"
"""Copy of the root within a pending version."""


@dataclass(frozen=True)
class Version:
    """A version: its bundle's folder, what it says about itself, and whether a model name loads it."""

    folder: Path
    record: VersionRecord
    current: bool = False

    @property
    def pending(self) -> bool:
        """Whether it has been neither kept nor discarded."""
        return self.folder.parent.name == "pending"

    def fields(self) -> dict[str, Any]:
        """Return the fields of ``docs/worker-protocol.md``."""
        return {
            **self.record.model_dump(mode="json", exclude={"format", "line"}),
            "folder": str(self.folder),
            "pending": self.pending,
            "current": self.current,
        }


@dataclass(frozen=True)
class Root:
    """Where fine-tuning a model starts.

    Parameters
    ----------
    folder
        Bundle of the root.
    name
        The root's name.
    version
        The version that is current, if the model was fine-tuned before; None for a root.
    """

    folder: Path
    name: str
    version: VersionRecord | None

    @property
    def model(self) -> str:
        """Name that a version is kept under by default."""
        return self.version.model if self.version is not None else f"{self.name}-tuned"[:64]


def versions_folder() -> Path:
    """Return the folder of all versions."""
    return user_folder() / "versions"


def root_of(model: str | Path) -> Root:
    """Return the root of a model given by name or folder: itself, or what it was fine-tuned from.

    Raises
    ------
    ModelNotFoundError, BundleError
        If there is no such model, or it is damaged.
    """
    folder = find_model(model)
    record = read_version(folder)
    if record is None:
        return Root(folder, folder.name, None)
    if folder.resolve().parent == (versions_folder() / "pending").resolve():
        raise ModelError(
            f"{folder} is a version that was not kept.", "Keep it first, or fine-tune the model it came from."
        )
    home = versions_folder() / record.line / "0"
    if not home.is_dir():
        return Root(folder, folder.name, None)  # it came from another computer: it is a root here
    return Root(home, record.root, record.model_copy(update={"model": folder.name}))


def check_room(root: Root) -> None:
    """Raise `OutputError` now if there will be no room for a version later."""
    _make_folder(versions_folder())
    size = sum(path.stat().st_size for path in root.folder.iterdir() if path.is_file())
    free = shutil.disk_usage(versions_folder()).free
    if free < _ROOM * size:
        raise OutputError(
            f"{free >> 20} MB are free on the disk of {versions_folder()}, expected {_ROOM * size >> 20}.",
            "Free some space.",
        )


def add_pending(
    root: Root, tuned: FineTuned, corrections: Sequence[Corrections], *, name: str | None = None
) -> Version:
    """Write a fine-tuned model as a pending version.

    Parameters
    ----------
    root
        Where it started.
    tuned, corrections
        What came of it, and what it learnt from.
    name
        Model name that it is kept under; the root's default where None.

    Raises
    ------
    ModelError
        If the name cannot be had.
    OutputError
        If it cannot be written.
    """
    model = name or root.model
    own_folder(model)
    bundle = read_bundle(root.folder)
    version = secrets.token_hex(8)
    record = VersionRecord.of(
        tuned,
        corrections,
        version=version,
        model=model,
        root=root.name,
        root_digest=bundle_digest(root.folder),
    )
    folder = versions_folder() / "pending" / version
    write_bundle(
        folder,
        tuned.spec.model_copy(update={"name": model}),
        tuned.network,
        card=tuned_card(bundle.card, bundle.spec, record),
        licence=bundle.licence,
        replay=bundle.read_replay(),
        dtype="float32",
    )
    with _writing(folder):
        (folder / _ROOT).mkdir()
        _copy(root.folder, folder / _ROOT)
    record.write(folder)
    _drop_old_pending()
    return Version(folder, record)


def pending_version(version: str) -> Version:
    """Return a pending version by its id.

    Raises
    ------
    VersionNotFoundError
        If there is none.
    """
    folder = versions_folder() / "pending" / version
    record = read_version(folder) if _ID.fullmatch(version) else None
    if record is None:
        raise VersionNotFoundError(
            f"There is no pending version {version!r}.", "It may have been kept or discarded already."
        )
    return Version(folder, record)


def keep_version(version: str, *, name: str | None = None, force: bool = False) -> Version:
    """Keep a pending version: it becomes its model's current one.

    Parameters
    ----------
    version
        Its id.
    name
        Name of the model; the one it was made for where None. A new name makes a new model.
    force
        Keep it whatever the verdict.

    Raises
    ------
    VersionNotFoundError
        If there is no such pending version.
    GuardError
        If its verdict is ``refuse``.
    ModelError
        If the name belongs to another model, or the model is pinned.
    OutputError
        If it cannot be written.
    """
    with _locked():
        pending = pending_version(version)
        record = pending.record
        if record.verdict == "refuse" and not force:
            raise GuardError(record.message, "Correct more images, or keep it by force.")
        model = name or record.model
        line, parent = _line_for(model, record, pending.folder / _ROOT)
        home = versions_folder() / line
        number = 1 + max(_numbers(home), default=0)
        record = record.model_copy(update={"model": model, "line": line, "number": number, "parent": parent})
        if model != pending.record.model:
            _rename(pending.folder, read_spec(home / "0"), record, home / "0" / CARD)
        record.write(pending.folder)
        target = home / str(number)
        with _writing(target):
            pending.folder.rename(target)
            sync(home)
        shutil.rmtree(target / _ROOT, ignore_errors=True)
        _install(target, model)
    return Version(target, record, current=True)


def discard_version(version: str) -> bool:
    """Remove a pending version; False if there was none."""
    with _locked():
        try:
            folder = pending_version(version).folder
        except (VersionNotFoundError, BundleError):
            return False
        (folder / RECORD).unlink()
        shutil.rmtree(folder, ignore_errors=True)
    return True


def undo_version(model: str) -> Version:
    """Make the parent of the current version current, bit for bit as it was.

    Raises
    ------
    VersionNotFoundError
        If the model was never fine-tuned, or is its root already.
    """
    current = _current(model)
    if current.parent is None:
        raise VersionNotFoundError(f"{model} is its root {current.root} already: there is nothing to undo.")
    return use_version(model, current.parent)


def use_version(model: str, number: int) -> Version:
    """Make a kept version current.

    Raises
    ------
    VersionNotFoundError
        If there is no such version.
    OutputError
        If it cannot be written; the model stays as it was.
    """
    with _locked():
        line = _line_of(model)
        folder = versions_folder() / line / str(number)
        record = read_version(folder)
        if record is None:
            numbers = ", ".join(map(str, sorted(_numbers(folder.parent))))
            raise VersionNotFoundError(f"{model} has no version {number}; it has {numbers}.")
        _install(folder, model)
    return Version(folder, record, current=True)


def list_versions(model: str | None = None) -> list[dict[str, Any]]:
    """List fine-tuned models: name, root, number of the current version, and all versions, pending ones too.

    A damaged version is left out; its folder stays.
    """
    models: dict[str, dict[str, Any]] = {}
    current = {line: (name, number) for name, line, number in _installed()}
    for home in sorted(_folders(versions_folder())):
        if home.name == "pending":
            continue
        versions = [one for number in sorted(_numbers(home)) if (one := _read(home / str(number)))]
        if versions:
            name, number = current.get(home.name, (versions[-1].record.model, None))
            models[name] = _model(name, number, versions)
    for folder in sorted(_folders(versions_folder() / "pending")):
        if pending := _read(folder):
            name = pending.record.model
            entry = models.setdefault(name, _model(name, None, [pending]))
            if pending.fields() not in entry["versions"]:
                entry["versions"].append(pending.fields())
    return [entry for name, entry in models.items() if model in (None, name, entry["root"])]


def remove_versions(line: str) -> None:
    """Remove all versions of a model that is removed itself."""
    if _ID.fullmatch(line):
        with _locked():
            shutil.rmtree(versions_folder() / line, ignore_errors=True)


def _model(name: str, number: int | None, versions: Sequence[Version]) -> dict[str, Any]:
    fields = [
        {**one.fields(), "model": name, "current": not one.pending and one.record.number == number}
        for one in versions
    ]
    return {"name": name, "root": versions[0].record.root, "current": number, "versions": fields}


def _line_for(model: str, record: VersionRecord, root: Path) -> tuple[str, int]:
    """Return the tree that a version goes into, and the number of its parent; begin one if need be."""
    folder = own_folder(model)
    if folder.exists():
        current = read_version(folder)
        if current is None or current.root_digest != record.root_digest or not current.line:
            raise ModelError(
                f"There is a model {model!r} already, which is no version of {record.root}.",
                "Keep it under another name.",
            )
        _refuse_pinned(model)
        return current.line, current.number or 0
    line = secrets.token_hex(8)
    zero = VersionRecord(
        version=line,
        line=line,
        number=0,
        model=model,
        root=record.root,
        root_digest=record.root_digest,
        created=record.created,
        message=f"The root, {record.root}.",
    )
    home = versions_folder() / line
    _make_folder(home)
    with atomic_folder(home / "0") as partial:
        _copy(root, partial)
        zero.write(partial)
    return line, 0


def _line_of(model: str) -> str:
    return _current(model).line


def _current(model: str) -> VersionRecord:
    for name, _, _ in _installed():
        if name == model:
            record = read_version(user_models_folder() / name)
            assert record is not None
            return record
    for home in _folders(versions_folder()):  # kept, but killed before it became current
        record = _record_or_none(home / "0")
        if record is not None and record.model == model and record.line == home.name:
            return record
    raise VersionNotFoundError(f"{model!r} is no model that was fine-tuned here.")


def _installed() -> Iterator[tuple[str, str, int]]:
    """Name, line and current number of every model that was fine-tuned here."""
    for folder in _folders(user_models_folder()):
        record = _record_or_none(folder)
        if record is not None and record.line and (versions_folder() / record.line).is_dir():
            yield folder.name, record.line, record.number or 0


def _install(version: Path, model: str) -> None:
    """Make a kept version what the model's name loads."""
    target = own_folder(model)
    _refuse_pinned(model)
    with atomic_folder(target) as partial:
        _copy(version, partial)
        if (target / STORE_RECORD).is_file():
            shutil.copyfile(target / STORE_RECORD, partial / STORE_RECORD)


def _refuse_pinned(model: str) -> None:
    if read_record(own_folder(model)).pinned:
        raise ModelError(f"{model!r} is pinned.", "Let it go first, or keep it under another name.")


def _copy(source: Path, target: Path) -> None:
    for path in source.iterdir():
        if path.is_file() and path.name != STORE_RECORD:
            shutil.copyfile(path, target / path.name)


def _rename(folder: Path, root: Any, record: VersionRecord, root_card: Path) -> None:
    """Write a pending version's new name into its files."""
    spec = read_spec(folder).model_copy(update={"name": record.model})
    with atomic_path(folder / SPEC) as temporary:
        temporary.write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
    card = root_card.read_text(encoding="utf-8") if root_card.is_file() else ""
    with atomic_path(folder / CARD) as temporary:
        temporary.write_text(tuned_card(card, root, record), encoding="utf-8")


def _numbers(home: Path) -> list[int]:
    return [int(folder.name) for folder in _folders(home) if folder.name.isdecimal()]


def _folders(home: Path) -> list[Path]:
    if not home.is_dir():
        return []
    return [path for path in home.iterdir() if path.is_dir() and not path.name.startswith((".", "_"))]


def _read(folder: Path) -> Version | None:
    record = _record_or_none(folder)
    return None if record is None else Version(folder, record)


def _record_or_none(folder: Path) -> VersionRecord | None:
    try:
        return read_version(folder)
    except BundleError:
        return None


def _drop_old_pending() -> None:
    oldest = time.time() - PENDING_DAYS * 86400
    for folder in _folders(versions_folder() / "pending"):
        if folder.stat().st_mtime < oldest:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked() -> Iterator[None]:
    from filelock import FileLock, Timeout

    _make_folder(versions_folder())
    try:
        with FileLock(versions_folder() / "lock", timeout=LOCK_SECONDS):
            yield
    except Timeout:
        raise OutputError(
            f"Another process is writing to {versions_folder()} and does not end.", "Wait for it, or end it."
        ) from None


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"Cannot write to {folder}: {error.strerror or error}.", "Free some space; nothing was changed."
        ) from error


def _make_folder(folder: Path) -> None:
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
