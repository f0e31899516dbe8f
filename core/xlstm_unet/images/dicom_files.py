"""Finding DICOM series in folders and zip archives."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from xlstm_unet.errors import ImageError

MAX_FILES = 100_000
"""Most files of a folder or archive that are looked at."""
MAX_FILE_BYTES = 2**30
"""Largest single file of an archive, unpacked."""

_TAGS = [
    "SOPClassUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription", "Modality", "PatientID",
    "FrameOfReferenceUID", "ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing",
    "SpacingBetweenSlices", "SliceThickness", "Rows", "Columns", "SamplesPerPixel", "NumberOfFrames",
    "InstanceNumber",
]  # fmt: skip


@dataclass(frozen=True)
class Series:
    """A series of a folder or archive.

    Parameters
    ----------
    uid
        Its SeriesInstanceUID.
    number, description, modality
        As the scanner wrote them; empty where it did not.
    files
        Where its slices lie, in the order of the names.
    """

    uid: str
    number: str
    description: str
    modality: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        """Describe the series in a line."""
        return f"{self.number or '?'} {self.description!r} ({self.modality}, {len(self.files)} files)"


class Files:
    """Reads files of a folder, with its subfolders, or of a zip archive; hidden ones are passed over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.is_dir():
            found = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
        else:
            try:
                with zipfile.ZipFile(path) as archive:
                    found = [info.filename for info in archive.infolist() if not info.is_dir()]
            except (zipfile.BadZipFile, OSError) as error:
                raise ImageError(
                    f"{path}: zip archive is damaged ({error}).", "Copy or export it again."
                ) from error
        self.names = sorted(name for name in found if not Path(name).name.startswith("."))
        if len(self.names) > MAX_FILES:
            raise ImageError(f"{path}: {len(self.names)} files, at most {MAX_FILES} are looked at.")

    def contents(self, wanted: Collection[str] | None = None) -> Iterator[tuple[str, bytes | Path]]:
        """Yield the name of each file (or each of those wanted), and its path or (archive) its bytes."""
        names = [name for name in self.names if wanted is None or name in wanted]
        if self.path.is_dir():
            yield from ((name, self.path / name) for name in names)
            return
        try:
            with zipfile.ZipFile(self.path) as archive:
                for name in names:
                    if archive.getinfo(name).file_size > MAX_FILE_BYTES:
                        raise ImageError(f"{self.path}: {name} unpacks to more than {MAX_FILE_BYTES} bytes.")
                    yield name, archive.read(name)
        except (
            zipfile.BadZipFile,
            OSError,
            NotImplementedError,
            RuntimeError,
            EOFError,
            zlib.error,
        ) as error:
            raise ImageError(f"{self.path}: {error}.", "Copy or export it again.") from error


def is_dicom(start: bytes) -> bool:
    """Whether a file that begins so is a DICOM file."""
    return start[128:132] == b"DICM"


def holds_dicom(path: Path) -> bool:
    """Whether a folder (or its subfolders) or zip archive holds a DICOM file."""
    return any(is_dicom(_start(content)) for _, content in Files(path).contents())


def list_series(path: Path | str) -> list[Series]:
    """List the series of images in a folder, with its subfolders, or a zip archive.

    Returns
    -------
    series
        In the order of their numbers; files that are not DICOM, and objects that hold no image, left out.

    Raises
    ------
    ImageError
        If there is none, or the archive is damaged.
    """
    return [series for series, _ in headers_of_series(Path(path))]


def image_name(path: Path, series: Series | None = None) -> str:
    """Name of what is read from a folder or archive, with the series where one was asked for."""
    stem = path.stem if path.suffix.lower() == ".zip" else path.resolve().name
    if series is None:
        return stem
    said = series.description or series.number or series.uid
    return f"{stem}_{''.join(c if c.isalnum() or c in '-.' else '-' for c in said)}"


def _start(content: bytes | Path) -> bytes:
    if isinstance(content, bytes):
        return content[:132]
    try:
        with content.open("rb") as file:
            return file.read(132)
    except OSError:
        return b""


def read_dataset(content: bytes | Path, name: str, *, pixels: bool) -> Any:
    """Return a file as pydicom reads it, whole or (without pixels) the few fields that geometry needs."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    source = BytesIO(content) if isinstance(content, bytes) else content
    options: dict[str, Any] = {} if pixels else {"stop_before_pixels": True, "specific_tags": _TAGS}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(source, **options)
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ImageError(
            f"{name}: DICOM file is damaged ({' '.join(str(error).split())}).", "Copy or export it again."
        ) from error


def headers_of_series(path: Path) -> list[tuple[Series, list[Any]]]:
    """Return every series with the headers of its files."""
    found: dict[str, list[tuple[str, Any]]] = {}
    files = Files(path)
    for name, content in files.contents():
        if not is_dicom(_start(content)):
            continue
        header = read_dataset(content, f"{path.name}/{name}", pixels=False)
        _check_whole(header, f"{path.name}/{name}")
        if "Rows" in header and "SeriesInstanceUID" in header:
            found.setdefault(str(header.SeriesInstanceUID), []).append((name, header))
    if not found:
        raise ImageError(
            f"{path.name}: no DICOM image among {len(files.names)} files.",
            "Name the folder that holds the series.",
        )
    result = []
    for uid, members in found.items():
        first = members[0][1]
        series = Series(
            uid,
            str(first.get("SeriesNumber") or ""),
            str(first.get("SeriesDescription") or ""),
            str(first.get("Modality") or ""),
            tuple(name for name, _ in members),
        )
        result.append((series, [header for _, header in members]))
    return sorted(result, key=lambda item: (len(item[0].number), item[0].number, item[0].uid))


def _check_whole(header: Any, name: str) -> None:
    """Refuse a file that should be an image and ends before it: left out, it would be a missing slice."""
    kind = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID")
    is_image = kind is None or "Image Storage" in kind.name
    if is_image and not ("Rows" in header and "SeriesInstanceUID" in header):
        raise ImageError(f"{name}: DICOM file is cut off or damaged.", "Copy or export it again.")


def choose_series(path: Path, wanted: str | None) -> tuple[Series, list[Any]]:
    """Return the series that is wanted, or the only one, with the headers of its files.

    Raises
    ------
    ImageError
        If there is none, or several that fit; the message lists what there is.
    """
    found = headers_of_series(path)
    listed = "; ".join(str(series) for series, _ in found[:20])
    if wanted is None:
        if len(found) == 1:
            return found[0]
        raise ImageError(
            f"{path.name}: {len(found)} series, expected one: {listed}.",
            "Say which one by its number, description or UID (--series on the command line).",
        )
    fitting = [
        item
        for item in found
        if wanted in (item[0].uid, item[0].number) or wanted.lower() == item[0].description.lower()
    ]
    if len(fitting) == 1:
        return fitting[0]
    many = f"{len(fitting)} series are" if fitting else "no series is"
    raise ImageError(
        f"{path.name}: {many} called {wanted!r}; there are: {listed}.", "Name one by its number or UID."
    )
