"""Where the files of a data set lie: folders or archives, found by name and read within bounds."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from xlstm_unet.errors import DatasetError
from xlstm_unet.images import image_stem

MAX_FILES = 200_000
"""Most files that a part of a data set may have."""
MAX_FILE_BYTES = 1 << 30
"""Largest single file of an archive, unpacked."""
MAX_ARCHIVE_BYTES = 16 << 30
"""Largest archive, unpacked."""

PARTS = ("images", "labels")
_NUMBERED = re.compile(r"\d{4}")


class Source:
    """Files of one split: a folder of images and one of labels.

    An image is one file, or one a channel: ``<id>_0000``, ``<id>_0001`` and so on, or ``<id>_<channel>``.

    Parameters
    ----------
    where
        A folder that holds both, or a zip archive of them.
    parts
        Names of the two folders.

    Raises
    ------
    DatasetError
        If a part is missing, or the archive is damaged, hostile or too large.
    """

    def __init__(self, where: Path, parts: tuple[str, str] = PARTS) -> None:
        self.where = where
        self._images, self._labels = parts
        names = _archive_names(where, parts) if where.is_file() else _folder_names(where, parts)
        self._names: dict[str, dict[str, str]] = {part: {} for part in parts}
        for name in names:
            part = PurePosixPath(name).parts[0]
            stem = image_stem(name)
            if stem in self._names[part]:
                raise DatasetError(
                    f"{where} has two files for {part}/{stem}: {self._names[part][stem]} and {name}.",
                    "Keep one of them.",
                )
            self._names[part][stem] = name
        for part in parts:
            if not self._names[part]:
                raise DatasetError(f"{where} has no files in {part}/.", _hint(parts))
        self._channels: dict[str, dict[str, str]] = {}
        for stem, name in self._names[self._images].items():
            head, _, channel = stem.rpartition("_")
            self._channels.setdefault(head, {})[channel.casefold()] = name

    def ids(self) -> list[str]:
        """Names of the images without their channels, sorted."""
        ids = set()
        for stem in self._names[self._images]:
            head, _, channel = stem.rpartition("_")
            apart = bool(_NUMBERED.fullmatch(channel)) or self._has_labels(head)
            ids.add(head if head and apart and not self._has_labels(stem) else stem)
        return sorted(ids)

    def images(self, stem: str, channels: Sequence[str] = ()) -> list[str]:
        """Names of the files of an image: one that holds all, or one a channel, in the order of channels.

        Parameters
        ----------
        stem
            Name of the image.
        channels
            Names of the channels wanted, as they may end the files' names.

        Raises
        ------
        DatasetError
            If there is none, or more than one that could be meant.
        """
        if (whole := self._names[self._images].get(stem)) is not None:
            return [whole]
        found = self._channels.get(stem, {})
        numbered = sorted(channel for channel in found if _NUMBERED.fullmatch(channel))
        if numbered:
            expected = [f"{number:04d}" for number in range(len(numbered))]
            if numbered != expected:
                raise DatasetError(
                    f"{self.where}: sample {stem!r} has the channels {', '.join(numbered)}, "
                    f"expected {', '.join(expected)}.",
                    "Add the missing file or remove the sample.",
                )
            return [found[channel] for channel in numbered]
        named = [channel.casefold() for channel in channels]
        if named and all(channel in found for channel in named):
            return [found[channel] for channel in named]
        if len(found) == 1 and len(named) < 2:
            return [*found.values()]
        if found:
            raise DatasetError(
                f"{self.where}: sample {stem!r} has the images {', '.join(sorted(found))}, "
                f"expected {', '.join(channels) or 'one'}.",
                "Name the channels in the model: model.channel_names.",
            )
        raise self._missing(self._images, stem, (stem, f"{stem}_0000"))

    def labels(self, stem: str) -> str:
        """Name of the labels of image ``stem``: the same stem, or ``<stem>_labels``."""
        candidates = (stem, f"{stem}_labels")
        for candidate in candidates:
            if candidate in self._names[self._labels]:
                return self._names[self._labels][candidate]
        raise self._missing(self._labels, stem, candidates)

    def _has_labels(self, stem: str) -> bool:
        return stem in self._names[self._labels] or f"{stem}_labels" in self._names[self._labels]

    @contextmanager
    def path(self, name: str) -> Iterator[Path]:
        """Give a readable path for a file; a member of an archive is unpacked to a temporary file."""
        if not self.where.is_file():
            yield self.where / name
            return
        with tempfile.TemporaryDirectory(prefix="xlstm-unet-") as folder:
            target = Path(folder) / PurePosixPath(name).name
            try:
                with zipfile.ZipFile(self.where) as archive:
                    target.write_bytes(archive.read(name))
            except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
                raise DatasetError(f"{self.where}: {name} cannot be unpacked: {error}.") from error
            yield target

    def _missing(self, part: str, stem: str, candidates: tuple[str, ...]) -> DatasetError:
        return DatasetError(
            f"{self.where}: sample {stem!r} has no file in {part}/, expected {' or '.join(candidates)}.",
            "Add the missing file or remove the sample.",
        )


def _hint(parts: tuple[str, str]) -> str:
    return f"A data set needs {parts[0]}/ and {parts[1]}/ with equal names."


def _folder_names(folder: Path, parts: tuple[str, str]) -> list[str]:
    names: list[str] = []
    for part in parts:
        if not (folder / part).is_dir():
            raise DatasetError(f"{folder} has no folder {part}/.", _hint(parts))
        for path in sorted((folder / part).iterdir()):
            if path.is_file() and not path.name.startswith("."):
                names.append(f"{part}/{path.name}")
            if len(names) > MAX_FILES:
                raise DatasetError(f"{folder} has more than {MAX_FILES} files.")
    return names


def _archive_names(path: Path, parts: tuple[str, str]) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DatasetError(f"{path} is not a readable zip archive: {error}.", "Copy it again.") from error
    if len(members) > MAX_FILES:
        raise DatasetError(f"{path} has {len(members)} members, at most {MAX_FILES} are read.")
    if (total := sum(m.file_size for m in members)) > MAX_ARCHIVE_BYTES:
        raise DatasetError(f"{path} unpacks to {total} bytes, at most {MAX_ARCHIVE_BYTES} are read.")
    names = []
    for member in members:
        pure = PurePosixPath(member.filename)
        if pure.is_absolute() or ".." in pure.parts or "\\" in member.filename:
            raise DatasetError(f"{path} has a member outside its folders: {member.filename!r}.")
        if member.is_dir() or pure.name.startswith("."):
            continue
        if len(pure.parts) != 2 or pure.parts[0] not in parts:
            raise DatasetError(
                f"{path} has a member that is not in {parts[0]}/ or {parts[1]}/: {member.filename!r}."
            )
        if member.file_size > MAX_FILE_BYTES:
            raise DatasetError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes, "
                f"at most {MAX_FILE_BYTES} are read."
            )
        names.append(member.filename)
    return names
