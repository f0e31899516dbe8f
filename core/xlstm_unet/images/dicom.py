"""Reading DICOM series: folders or zip archives of files with one slice each.

A series becomes a volume only if its slices are all there, all of one kind and evenly spaced; else the reason
is said. Nothing is guessed: of several series one has to be named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.images.dicom_files import Files, choose_series, image_name, read_dataset
from xlstm_unet.images.dicom_geometry import (
    check_uniform,
    series_affine,
    slice_step,
    sorted_places,
    tilt_note,
)
from xlstm_unet.images.dicom_pixels import read_pixels
from xlstm_unet.images.image import Image
from xlstm_unet.images.limits import check_size


def read_dicom(
    path: Path | str, series: str | None = None, axes: str | None = None, *, limit: int | None = None
) -> Image:
    """Read a DICOM series as a volume, values rescaled as its files say.

    Parameters
    ----------
    path
        Folder (with its subfolders) or zip archive.
    series
        Number, description or UID of the series; needed where there are several.
    axes
        ``TZYX`` takes a series with several images at each place as time points, by their numbers.
    limit
        Largest decoded size in bytes; by default `limits.max_bytes`.

    Returns
    -------
    image
        (Z, Y, X), slices along the normal of the slices, spacing in mm, with affine; int16 or int32 where
        values are whole numbers, else float32.

    Raises
    ------
    ImageError
        If there is no series or several, slices are missing, of several kinds or unevenly spaced, or a file
        is damaged or in an unknown encoding.
    """
    path = Path(path)
    chosen, headers = choose_series(path, series)
    name = f"{path.name}: series {chosen}"
    check_uniform(headers, name)
    order = sorted_places(headers, name)
    frames = len(headers) // len(order)
    if frames > 1 and (axes or "").upper() != "TZYX":
        raise ImageError(
            f"{name}: {frames} images at each of {len(order)} places: several time points or contrasts.",
            "Pass axes 'TZYX' to take them one by one, or copy one set of files into a folder of its own.",
        )
    step = slice_step(headers, order, name)
    first = headers[order[0][0]]
    rows, columns = int(first.Rows), int(first.Columns)
    check_size(name, (len(headers), rows, columns), 4, limit)
    places = {chosen.files[file]: (t, z) for z, files in enumerate(order) for t, file in enumerate(files)}
    array = _read_slices(path, places, (frames, len(order), rows, columns), name)
    affine = series_affine(first, step)
    label = image_name(path, chosen if series is not None else None)
    whole = "TZYX" if frames > 1 else "ZYX"
    return Image(
        array if frames > 1 else array[0],
        whole,
        tuple(float(size) for size in np.sqrt((affine[:3, :3] ** 2).sum(axis=0))[::-1]),
        "mm",
        affine,
        label,
        f"DICOM series {chosen}: {len(order)} slices, axes {whole}{tilt_note(affine)}.",
    )


def _read_slices(
    path: Path, places: dict[str, tuple[int, int]], shape: tuple[int, ...], name: str
) -> NDArray[Any]:
    """Return the volume; it grows from int16 to int32 or float32 when a slice needs that."""
    array: NDArray[Any] = np.zeros(shape, np.int16)
    for file, content in Files(path).contents(places):
        pixels = read_pixels(read_dataset(content, f"{path.name}/{file}", pixels=True), f"{path.name}/{file}")
        if pixels.shape != shape[2:]:
            raise ImageError(f"{name}: {file} holds {pixels.shape} pixels, expected {shape[2:]}.")
        kind = np.promote_types(array.dtype, pixels.dtype)
        if kind != array.dtype:
            array = array.astype(np.float32 if kind.kind == "f" else np.int32)
        array[places[file]] = pixels
    return array
