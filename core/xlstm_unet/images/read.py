"""Opening image files and folders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Image
from xlstm_unet.images.limits import check_size

SUFFIXES = (
    ".nii.gz",
    ".ome.tiff",
    ".ome.tif",
    ".tiff",
    ".tif",
    ".nrrd",
    ".nhdr",
    ".png",
    ".jpeg",
    ".jpg",
    ".nii",
)
"""Endings of the files that can be read, longest first."""
LABEL_ENDING = "_labels"
"""What the stem of a label file ends in."""

_SUFFIX_HINT = "Expected one of " + ", ".join(sorted(SUFFIXES)) + "."
_DICOM_SUFFIXES = (".dcm", ".ima", ".dicom")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def image_suffix(path: Path | str) -> str | None:
    """Return the ending of a readable image file (``.nii.gz`` whole, in lower case), None for other files."""
    name = Path(path).name.lower()
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), None)


def image_stem(path: Path | str) -> str:
    """Return the file name without its image ending: ``brain`` for ``brain.nii.gz``."""
    name = Path(path).name
    return name[: len(name) - len(image_suffix(name) or Path(name).suffix)]


def read_image(
    path: Path | str, axes: str | None = None, *, series: str | None = None, limit: int | None = None
) -> Image:
    """Read a PNG, JPEG, TIFF (OME, ImageJ), NIfTI or NRRD file, or a folder or zip archive of a DICOM series.

    Parameters
    ----------
    path
        The file, whose contents decide how it is read, not its ending; or a folder or zip archive of DICOM
        files.
    axes
        How to read the axes instead of how the file says, one letter of ``TCZYX`` each, in the order of the
        file (that which ``read_as`` names): rows, columns, colour (``YXC``) for PNG and JPEG; reversed for
        NIfTI and NRRD (``ZYX``, ``CZYX``). A fourth axis of NIfTI has to be told (``TZYX``, ``CZYX``).
    series
        Number, description or UID of the DICOM series, where there are several.
    limit
        Largest decoded size in bytes; by default `limits.max_bytes`.

    Returns
    -------
    image
        Its ``read_as`` says how it was read.

    Raises
    ------
    ImageError
        If the file is missing, empty, damaged, cut off, too large, or of a kind that is not read.

    Examples
    --------
    >>> read_image("nuclei.png").axes  # doctest: +SKIP
    'YX'
    """
    path = Path(path)
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".zip"):
        from xlstm_unet.images.dicom import read_dicom

        return read_dicom(path, series, axes, limit=limit)
    _check_file(path)
    return replace(_read(path, limit, axes and axes.upper()), name=image_stem(path))


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ImageError(f"{path}: no such file.", "Check the name and the folder.")
    if not path.is_file():
        raise ImageError(f"{path}: not a regular file.", "Name an image file.")
    if path.suffix.lower() in _DICOM_SUFFIXES:
        raise ImageError(
            f"{path}: one DICOM file, expected a series of slices.", "Name the folder or zip archive of all."
        )
    if image_suffix(path) is None:
        raise ImageError(f"{path}: files ending in {path.suffix or 'nothing'!r} are not read.", _SUFFIX_HINT)
    if path.stat().st_size == 0:
        raise ImageError(f"{path}: the file is empty (0 bytes).", "Copy or export it again.")


def _read(path: Path, limit: int | None, axes: str | None) -> Image:
    from xlstm_unet.images import nifti, nrrd_file, png_jpeg, tiff

    name = path.name
    try:
        with path.open("rb") as file:
            start = file.read(4096)
        if start.startswith(_TIFF_MAGIC):
            return tiff.read_tiff(path, name, limit, axes)
        if nifti.is_nifti(start) or (start[:2] == b"\x1f\x8b" and nifti.is_nifti(nifti.first_bytes(start))):
            return nifti.read_nifti(path, name, limit, axes)
        if start.startswith(nrrd_file.MAGIC):
            return nrrd_file.read_nrrd(path, name, limit, axes)
        if start.startswith((png_jpeg.PNG_MAGIC, png_jpeg.JPEG_MAGIC)):
            check_size(f"{name} (compressed)", (path.stat().st_size,), 1, limit)
            data = path.read_bytes()
            read = png_jpeg.read_png if start.startswith(png_jpeg.PNG_MAGIC) else png_jpeg.read_jpeg
            return read(data, name, limit, axes)
    except OSError as error:
        raise ImageError(
            f"{path}: cannot be read ({error.strerror or error}).", "Check its permissions."
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory for this image.", "Crop it first.") from error
    raise ImageError(
        f"{path}: not a PNG, JPEG, TIFF, NIfTI or NRRD image (begins with {start[:8]!r}).",
        "The file is damaged or misnamed; export it again.",
    )


def list_images(paths: Path | str | Iterable[Path | str]) -> list[Path]:
    """List image files: those named, and those lying in the folders named.

    Hidden files, files of other kinds and label files (``*_labels.*``, ``*.seg.nrrd``) in a folder are passed
    over; folders in it are not entered. A folder without images but with DICOM files (also in its folders)
    is itself an image. A file named by itself is kept whatever it is.

    Returns
    -------
    files
        In the order named, those of a folder by name; none twice.

    Raises
    ------
    ImageError
        If a path does not exist or a folder holds no image.
    """
    files: list[Path] = []
    for item in [paths] if isinstance(paths, (str, Path)) else paths:
        path = Path(item)
        if path.is_dir():
            files.extend(_images_in(path) or [_dicom_folder(path)])
        elif path.exists():
            files.append(path)
        else:
            raise ImageError(f"{path}: no such file or folder.", "Check the name.")
    if not files:
        raise ImageError("No image was named.", "Name image files or folders.")
    return list(dict.fromkeys(files))


def _images_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(folder.iterdir(), key=lambda entry: entry.name)
    except OSError as error:
        raise ImageError(
            f"{folder}: cannot be listed ({error.strerror}).", "Check its permissions."
        ) from error
    return [
        entry
        for entry in entries
        if entry.is_file()
        and not entry.name.startswith(".")
        and image_suffix(entry) is not None
        and not image_stem(entry).endswith((LABEL_ENDING, ".seg"))
    ]


def _dicom_folder(folder: Path) -> Path:
    """Return a folder if it holds DICOM files."""
    from xlstm_unet.images.dicom_files import holds_dicom

    if not holds_dicom(folder):
        entries = len(list(folder.iterdir()))
        raise ImageError(
            f"{folder}: no image among {entries} entries.", f"{_SUFFIX_HINT[:-1]}, or DICOM files."
        )
    return folder
