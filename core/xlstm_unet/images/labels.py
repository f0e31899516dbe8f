"""Reading and writing label images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.errors import ImageError, OutputError
from xlstm_unet.files import atomic_path
from xlstm_unet.images.grid import check_same_grid
from xlstm_unet.images.image import LARGEST_LABEL, Image
from xlstm_unet.images.read import image_suffix, read_image

_BIG_TIFF = 2**32 - 2**25
"""Bytes from which a TIFF file needs 64-bit offsets."""


def read_labels(path: Path | str, like: Image | None = None) -> NDArray[np.int32]:
    """Read labels: 0 is background, other whole numbers are objects or classes.

    Parameters
    ----------
    path
        A gray PNG, a TIFF, NIfTI or NRRD file of whole numbers. One channel axis of length 1 is dropped; a
        fourth axis of NIfTI is time.
    like
        The image that they belong to: labels of another size or in another place are refused.

    Returns
    -------
    labels
        int32, axes as `read_image` orders them.

    Raises
    ------
    ImageError
        If the file cannot be read, is a colour picture, holds negative, fractional or too large numbers, or
        does not lie on the grid of ``like``.
    """
    path = Path(path)
    if image_suffix(path) in (".jpg", ".jpeg"):
        raise ImageError(
            f"{path}: JPEG changes values and cannot hold labels.", "Save labels as TIFF or PNG."
        )
    _refuse_colour_png(path)
    image = read_image(path, _time_axes(path))
    if like is not None:
        check_same_grid(like, image, "label file")
    array = image.array
    if image.channels > 1:
        raise ImageError(
            f"{path}: a colour picture ({image.channels} channels), expected label numbers.",
            "Save labels as a 16-bit gray PNG, an int32 TIFF or NIfTI.",
        )
    array = array.reshape(image.label_shape)
    if array.dtype.kind == "f" and not (array == np.rint(array)).all():
        raise ImageError(
            f"{path}: labels of dtype {array.dtype} are not whole numbers.", "Is it the label file?"
        )
    low, high = array.min(), array.max()
    if low < 0 or high > LARGEST_LABEL:
        raise ImageError(
            f"{path}: labels from {low} to {high}, expected 0 to {LARGEST_LABEL}.", "Renumber them."
        )
    return np.ascontiguousarray(array, dtype=np.int32)


def _time_axes(path: Path) -> str | None:
    """Return the axes of a NIfTI file of four, whose fourth cannot be channels."""
    if image_suffix(path) not in (".nii", ".nii.gz"):
        return None
    from xlstm_unet.images.nifti import count_axes

    return "TZYX" if count_axes(path) == 4 else None


def _refuse_colour_png(path: Path) -> None:
    from xlstm_unet.images.png_jpeg import PNG_MAGIC, read_png_header

    if not path.is_file():
        return
    with path.open("rb") as file:
        start = file.read(64)
    if not start.startswith(PNG_MAGIC):
        return
    header = read_png_header(start, path.name)
    if header.colour in (2, 3, 6):
        raise ImageError(
            f"{path}: a {header.kind} PNG, expected label numbers.",
            "Save labels as a 16-bit gray PNG, an int32 TIFF or NIfTI.",
        )


def write_labels(path: Path | str, labels: ArrayLike, like: Image) -> None:
    """Write labels on the grid of an image, whole or not at all.

    Parameters
    ----------
    path
        ``.tif`` or ``.tiff``: int32 OME-TIFF, compressed, with axes and pixel size (BigTIFF where needed);
        ``.nii`` or ``.nii.gz``: int32 NIfTI with the image's affine and header; ``.png``: 16-bit gray.
    labels
        Integers from 0, axes ``like.label_axes``.
    like
        The image that the labels belong to.

    Raises
    ------
    OutputError
        If the ending is not one of these, PNG cannot hold the labels, or the file cannot be written.
    ImageError
        If the labels do not fit the image.
    """
    path = Path(path)
    array = np.ascontiguousarray(like.check_labels(labels), dtype=np.int32)
    suffix = image_suffix(path)
    if suffix in (".nii", ".nii.gz"):
        from xlstm_unet.images.nifti import write_nifti_labels

        with atomic_path(path) as temporary:
            write_nifti_labels(temporary, array, like)
    elif suffix in (".tif", ".tiff", ".ome.tif", ".ome.tiff"):
        with atomic_path(path) as temporary:
            _write_tiff(temporary, array, like)
    elif suffix == ".png":
        _write_png(path, array)
    else:
        raise OutputError(
            f"{path}: labels are not written to files ending in {path.suffix!r}.",
            "Use .tif, .nii.gz or .png.",
        )


def _write_tiff(path: Path, labels: NDArray[np.int32], like: Image) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": like.label_axes, "Name": f"{like.name} labels"}
    resolution: dict[str, Any] = {}
    if like.spacing is not None and like.unit != "pixel":
        for axis, step in zip(like.spatial_axes, like.spacing, strict=True):
            metadata |= {f"PhysicalSize{axis}": step, f"PhysicalSize{axis}Unit": like.unit}
        per_centimetre = 1e4 if like.unit == "µm" else 10.0
        step_y, step_x = like.spacing[-2:]
        resolution = {
            "resolution": (per_centimetre / step_x, per_centimetre / step_y),
            "resolutionunit": "CENTIMETER",
        }
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        bigtiff=labels.nbytes > _BIG_TIFF,
        photometric="minisblack",
        compression="zlib",
        compressionargs={"level": 6},
        metadata=metadata,
        **resolution,
    )


def _write_png(path: Path, labels: NDArray[np.int32]) -> None:
    import imagecodecs

    if labels.ndim != 2 or int(labels.max()) > np.iinfo(np.uint16).max:
        raise OutputError(
            f"{path}: PNG cannot hold labels of shape {labels.shape} up to {labels.max()}.",
            "Write .tif instead.",
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(imagecodecs.png_encode(labels.astype(np.uint16)))
