"""Where the files of a data set lie: folders or archives, found by name and read within bounds."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
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
_HINT = "A data set needs images/ and labels/ with equal names."


class Source:
    """Files of one split under ``images/`` and ``labels/``.

    Parameters
    ----------
    where
        A folder that holds both, or a zip archive of them.

    Raises
    ------
    DatasetError
        If a part is missing, or the archive is damaged, hostile or too large.
    """

    def __init__(self, where: Path) -> None:
        self.where = where
        names = _archive_names(where) if where.is_file() else _folder_names(where)
        self._names: dict[str, dict[str, str]] = {part: {} for part in PARTS}
        for name in names:
            part = PurePosixPath(name).parts[0]
            stem = image_stem(name)
            if stem in self._names[part]:
                raise DatasetError(
                    f"{where} has two files for {part}/{stem}: {self._names[part][stem]} and {name}.",
                    "Keep one of them.",
                )
            self._names[part][stem] = name
        for part in PARTS:
            if not self._names[part]:
                raise DatasetError(
                    f"{where} has no files in {part}/.",
                    "A data set needs images/ and labels/ with equal names.",
                )

    def stems(self) -> list[str]:
        """Stems of the images, sorted."""
        return sorted(self._names["images"])

    def image(self, stem: str) -> str:
        """Name of the image called ``stem``."""
        return self._find("images", stem, (stem,))

    def labels(self, stem: str) -> str:
        """Name of the labels of image ``stem``: the same stem, or ``<stem>_labels``."""
        return self._find("labels", stem, (stem, f"{stem}_labels"))

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

    def _find(self, part: str, stem: str, candidates: tuple[str, ...]) -> str:
        for candidate in candidates:
            if candidate in self._names[part]:
                return self._names[part][candidate]
        raise DatasetError(
            f"{self.where}: sample {stem!r} has no file in {part}/, expected {' or '.join(candidates)}.",
            "Add the missing file or remove the sample.",
        )


def _folder_names(folder: Path) -> list[str]:
    names: list[str] = []
    for part in PARTS:
        if not (folder / part).is_dir():
            raise DatasetError(f"{folder} has no folder {part}/.", _HINT)
        for path in sorted((folder / part).iterdir()):
            if path.is_file() and not path.name.startswith("."):
                names.append(f"{part}/{path.name}")
            if len(names) > MAX_FILES:
                raise DatasetError(f"{folder} has more than {MAX_FILES} files.")
    return names


def _archive_names(path: Path) -> list[str]:
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
        if len(pure.parts) != 2 or pure.parts[0] not in PARTS:
            raise DatasetError(f"{path} has a member that is not in images/ or labels/: {member.filename!r}.")
        if member.file_size > MAX_FILE_BYTES:
            raise DatasetError(
                f"{path}: {member.filename} unpacks to {member.file_size} bytes, "
                f"at most {MAX_FILE_BYTES} are read."
            )
        names.append(member.filename)
    return names
