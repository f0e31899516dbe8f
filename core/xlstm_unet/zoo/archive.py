"""A model as one file: a zip with the files of its folder, and nothing else."""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from xlstm_unet.errors import BundleError, ModelError
from xlstm_unet.files import atomic_path
from xlstm_unet.zoo.bundle import FILE_LIMITS, REPLAY, SPEC, WEIGHTS, read_bundle, read_spec
from xlstm_unet.zoo.place import atomic_folder
from xlstm_unet.zoo.store import own_folder

MAX_MEMBERS = 64
"""Entries of a zip, folders and files that are none of a model's included."""
MAX_RATIO = 100
"""Largest shrinkage of a member; what people write or measure does not shrink more, a bomb does."""

_BLOCK = 2**20
_STORED = {WEIGHTS, REPLAY}
"""Files that do not shrink."""
_END, _END_64, _END_BYTES = b"PK\5\6", b"PK\6\7", 22
_MAX_DIRECTORY_BYTES = 2**16
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OverflowError, RuntimeError, ValueError)
"""What the library raises for zips that are damaged, encrypted or packed in a way that it does not know."""
_DATE = (1980, 1, 1, 0, 0, 0)


def export_model(folder: Path, target: Path, *, replay: bool = True) -> Path:
    """Write a model to a zip: the same model always to the same bytes.

    Parameters
    ----------
    folder
        The model.
    target
        The zip; one that is there is replaced.
    replay
        Whether its replay pack, which holds pieces of images, goes along.

    Raises
    ------
    BundleError
        If the model is damaged.
    OutputError
        If the zip cannot be written.
    """
    spec = read_bundle(folder).spec
    left_out = set() if replay else {REPLAY}
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in FILE_LIMITS:
            if name not in left_out and (folder / name).is_file():
                member = zipfile.ZipInfo(f"{spec.name}/{name}", _DATE)
                member.compress_type = zipfile.ZIP_STORED if name in _STORED else zipfile.ZIP_DEFLATED
                member.external_attr = 0o644 << 16
                with (folder / name).open("rb") as source, archive.open(member, "w") as sink:
                    while block := source.read(_BLOCK):
                        sink.write(block)
    return target


def import_archive(path: Path, name: str | None = None) -> Path:
    """Put the model in a zip into the user's store.

    Only the files of a model are taken out, each bounded before and while it is unpacked.

    Parameters
    ----------
    path
        The zip: a model's files at its top, or in one folder.
    name
        Name to load it by; its own by default.

    Returns
    -------
    Path
        The model's folder.

    Raises
    ------
    BundleError
        If it is no zip, holds no model, or is damaged or hostile.
    ModelError
        If the name cannot be had.
    OutputError
        If it cannot be stored.
    """
    try:
        with path.open("rb") as file, _opened(path, file) as archive:
            members = _members(path, archive)
            spec_name = _name_in(path, archive, members[SPEC]) if name is None else name
            target = own_folder(spec_name)
            with atomic_folder(target, lambda: _check_free(target)) as partial:
                for file_name, member in members.items():
                    _unpack(path, archive, member, partial / file_name, FILE_LIMITS[file_name])
                check_imported(partial, path)
    except _DAMAGE as error:
        raise BundleError(f"{path} is damaged or no zip: {error}.") from error
    except FileNotFoundError as error:
        raise BundleError(f"There is no {path}.") from error
    return target


def import_folder(folder: Path, name: str | None = None) -> Path:
    """Copy a model's folder into the user's store; see `import_archive`."""
    spec = read_spec(folder)
    target = own_folder(name or spec.name)
    with atomic_folder(target, lambda: _check_free(target)) as partial:
        for file_name in FILE_LIMITS:
            if (folder / file_name).is_file() and not (folder / file_name).is_symlink():
                (partial / file_name).write_bytes((folder / file_name).read_bytes())
        check_imported(partial, folder)
    return target


def check_imported(folder: Path, source: Path) -> None:
    """Check a model that was unpacked to ``folder``; errors name ``source``.

    Raises
    ------
    BundleError
        If it is damaged.
    """
    try:
        read_bundle(folder).read_replay()
    except BundleError as error:
        message = error.message.replace(f"{folder}{os.sep}", "").replace(str(folder), str(source))
        raise BundleError(f"{source} cannot be imported: {message}", error.hint) from error


def _check_free(folder: Path) -> None:
    if folder.exists():
        raise ModelError(f"There is a model {folder.name!r} already.", "Give a --name, or remove that one.")


def _opened(path: Path, file: BinaryIO) -> zipfile.ZipFile:
    """Open a zip whose directory is of bounded size; the library would read any."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _END_BYTES - 2**16))
    tail = file.read()
    place = len(tail) - _END_BYTES
    if not (tail[place:].startswith(_END) and tail.endswith(b"\0\0")):
        place = tail.rfind(_END)
    if place < 0 or len(tail) < place + _END_BYTES:
        raise BundleError(f"{path} is no zip, or it is cut.")
    directory = int.from_bytes(tail[place + 12 : place + 16], "little")
    if directory > _MAX_DIRECTORY_BYTES or tail[place - 20 : place].startswith(_END_64):
        raise BundleError(f"{path} has a directory of more than {_MAX_DIRECTORY_BYTES} bytes.")
    file.seek(0)
    return zipfile.ZipFile(file)


def _members(path: Path, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The files of a model in a zip by name; everything is judged by the directory before it is unpacked."""
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise BundleError(f"{path} has {len(infos)} entries, expected at most {MAX_MEMBERS}.")
    members: dict[str, zipfile.ZipInfo] = {}
    folders = set()
    for info in infos:
        place = PurePosixPath(info.filename)
        if place.is_absolute() or ".." in place.parts or "\\" in info.filename or ":" in info.filename:
            raise BundleError(f"{path}: entry {info.filename[:100]!r} points out of the zip.")
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise BundleError(f"{path}: entry {info.filename[:100]!r} is a link or a device.")
        if info.is_dir() or place.name not in FILE_LIMITS or len(place.parts) > 2:
            continue
        if place.name in members:
            raise BundleError(f"{path} holds {place.name} twice, expected one model.")
        _check_size(path, info, FILE_LIMITS[place.name])
        members[place.name] = info
        folders.add(place.parent)
    _check_complete(path, members, len(folders))
    return members


def _check_size(path: Path, info: zipfile.ZipInfo, limit: int) -> None:
    if info.file_size > limit:
        raise BundleError(f"{path}: {info.filename} has {info.file_size} bytes, expected at most {limit}.")
    if info.file_size > MAX_RATIO * max(1, info.compress_size) and info.file_size > _BLOCK:
        raise BundleError(
            f"{path}: {info.filename} unpacks to {info.file_size} from {info.compress_size} bytes."
        )
    if info.flag_bits & 1:
        raise BundleError(f"{path}: {info.filename} is encrypted.", "Ask for it without a password.")


def _check_complete(path: Path, members: Collection[str], folders: int) -> None:
    for needed in (SPEC, WEIGHTS):
        if needed not in members:
            raise BundleError(f"{path} has no {needed}: it holds no model.")
    if folders != 1:
        raise BundleError(f"{path} holds a model's files in {folders} folders, expected one.")


def _name_in(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str:
    from xlstm_unet.zoo.untrusted import parse_json_object

    content = b"".join(_blocks(path, archive, member, FILE_LIMITS[SPEC]))
    fields = parse_json_object(content, f"{SPEC} in {path}")
    return str(fields.get("name"))


def _unpack(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, limit: int) -> None:
    with target.open("wb") as sink:
        for block in _blocks(path, archive, member, limit):
            sink.write(block)


def _blocks(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> Iterator[bytes]:
    """Unpack a file in pieces, no further than its directory entry says: the entry may lie."""
    size = 0
    try:
        with archive.open(member) as source:
            while block := source.read(_BLOCK):
                size += len(block)
                if size > min(member.file_size, limit):
                    break
                yield block
    except OSError as error:
        raise BundleError(f"{path}: {member.filename} cannot be read: {error.strerror or error}.") from error
    if size > min(member.file_size, limit):
        raise BundleError(
            f"{path}: {member.filename} unpacks to more than the {member.file_size} bytes told."
        )
