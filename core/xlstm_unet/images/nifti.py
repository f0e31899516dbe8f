"""Reading and writing NIfTI files.

A NIfTI file stores voxels with x fastest and indexes them (x, y, z); its array is taken in reverse, so that
axes are Z, Y, X as in every other image here. The affine stays as the file has it: from (x, y, z, 1) to world
coordinates.
"""

from __future__ import annotations

import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Array, Image, Unit
from xlstm_unet.images.limits import check_size

_AXES = {2: "YX", 3: "ZYX", 4: "TZYX", 5: "CTZYX"}
_TYPES: dict[int, tuple[Any, Any]] = {
    0: (nib.Nifti1Header, nib.Nifti1Image),
    348: (nib.Nifti1Header, nib.Nifti1Image),
    540: (nib.Nifti2Header, nib.Nifti2Image),
}
"""Kinds of file by the length of the header kept with an image."""
_FLAT = 1e-4
"""Volume of a voxel, in that of a right-angled one of the same sides, below which it counts as flat."""
_GEOMETRY_HINT = "Repair its header, or convert it again from the source."
_LENGTHS: dict[str, tuple[Unit, float]] = {"meter": ("mm", 1e3), "mm": ("mm", 1.0), "micron": ("µm", 1.0)}


def read_nifti(path: Path, name: str, limit: int | None, axes: str | None = None) -> Image:
    """Read a NIfTI-1 or NIfTI-2 file.

    The fifth axis holds channels, as the format says; 8-bit RGB voxels become channels. A fourth axis may
    hold time points or, in many files, channels: ``axes`` has to say it.

    Raises
    ------
    ImageError
        If the file is damaged or too large, its affine cannot be used, or a fourth axis is not told.
    """
    try:
        file: Any = nib.load(path, mmap=False)
        shape, dtype = file.shape, file.get_data_dtype()
        if not shape or min(shape) < 1:
            raise ImageError(f"{name}: NIfTI image of shape {shape} is empty.", "Export it again.")
        scaled = (file.dataobj.slope, file.dataobj.inter) != (1.0, 0.0)
        check_size(name, shape, max(dtype.itemsize, 8 if scaled else 1), limit)
        array = np.asanyarray(file.dataobj)
        stated = _stated_sizes(path, file.header)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(
            f"{name}: NIfTI file of {path.stat().st_size} bytes is damaged or cut off "
            f"({' '.join(str(error).split())}).",
            "Copy or export it again.",
        ) from error
    except MemoryError as error:
        raise ImageError(f"{name}: not enough memory for this image.", "Crop it first.") from error
    if scaled:
        array = array.astype(np.float32)
    array, usual, said = _named_axes(array, name)
    if axes is None and "T" in usual:
        raise ImageError(
            f"{name}: NIfTI image of {len(file.shape)} axes {file.shape}, expected one volume.",
            "Say what they are: axes TZYX to take time points one by one, CZYX for channels.",
        )
    if axes is not None and axes != usual:
        said = ", axes as asked"
    axes = axes or usual
    spacing, unit, affine, note = _geometry(file, stated, usual, name)
    if [axis for axis in axes if axis in "ZYX"] != [axis for axis in usual if axis in "ZYX"]:
        spacing, unit, affine, note = None, "pixel", None, ", voxel size and position left out"
    header = file.header.binaryblock if spacing is not None else None
    return Image(
        array,
        axes,
        spacing,
        unit,
        affine,
        name,
        f"NIfTI{said}: axes {axes} (z, y, x reversed){note}.",
        header,
    )


def _named_axes(array: Array, name: str) -> tuple[Array, str, str]:
    said = ""
    colour = array.dtype.fields is not None
    if colour:
        array = np.stack([array[channel] for channel in "RGB"], axis=-1)
    spatial: tuple[int, ...] = array.shape[:-1] if colour else array.shape
    while len(spatial) > 3 and spatial[-1] == 1:
        spatial = spatial[:-1]
    if len(spatial) not in _AXES or (colour and len(spatial) > 4):
        raise ImageError(
            f"{name}: NIfTI image of shape {spatial} has {len(spatial)} axes, expected 2 to 5.",
            "Export one volume at a time.",
        )
    axes = _AXES[len(spatial)]
    array = array.reshape(spatial + array.shape[-1:] if colour else spatial)
    array = array.transpose(*range(len(spatial))[::-1], *([len(spatial)] if colour else []))
    if axes == "CTZYX" and array.shape[1] == 1:
        array, axes, said = array[:, 0], "CZYX", ", fifth axis read as channels"
    return array, axes + "C" if colour else axes, said


def _geometry(
    file: Any, stated: NDArray[np.floating], axes: str, name: str
) -> tuple[tuple[float, ...] | None, Unit, NDArray[np.float64] | None, str]:
    """Return spacing, unit, affine, and what to say of them.

    A header that states no orientation (both codes 0) gives the spacing alone.
    """
    length = file.header.get_xyzt_units()[0]
    unit, scale = _LENGTHS.get(length, ("mm", 1.0))
    note = "" if length in _LENGTHS else ", unit not stated and taken as mm"
    spatial = sum(axis in axes for axis in "ZYX")
    if int(file.header["sform_code"]) <= 0 and not (np.isfinite(stated) & (stated != 0))[:spatial].all():
        raise ImageError(
            f"{name}: voxel size in the header is {' x '.join(f'{size:g}' for size in stated[:spatial])}, "
            "expected positive numbers.",
            _GEOMETRY_HINT,
        )
    affine = np.asarray(file.affine, dtype=np.float64)
    with np.errstate(all="ignore"):
        zooms = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)) * scale
        volume = abs(np.linalg.det(affine)) * scale**3
    if not np.isfinite(affine).all() or not (zooms > 0).all() or volume < _FLAT * float(np.prod(zooms)):
        raise ImageError(
            f"{name}: voxels of {' x '.join(f'{size:.4g}' for size in zooms)} {unit} with the matrix "
            f"{np.round(affine[:3, :3], 4).tolist()}: voxel size and directions in the header make no sense.",
            _GEOMETRY_HINT,
        )
    spacing = tuple(float(value) for value in zooms[:spatial][::-1])
    if not (int(file.header["sform_code"]) > 0 or int(file.header["qform_code"]) > 0):
        return spacing, unit, None, f"{note}, orientation not stated"
    return spacing, unit, np.diag([scale, scale, scale, 1.0]) @ affine, note


def _stated_sizes(path: Path, header: Any) -> NDArray[np.floating]:
    """Return the voxel size as the file has it: nibabel makes 1 of 0."""
    with nib.openers.ImageOpener(str(path)) as file:
        raw = file.read(len(header.binaryblock))
    sizes: NDArray[np.floating] = type(header)(raw, header.endianness, check=False)["pixdim"][1:4]
    return sizes


def write_nifti_labels(path: Path, labels: NDArray[np.int32], like: Image) -> None:
    """Write labels as a compressed or plain NIfTI file on the grid of ``like``.

    Parameters
    ----------
    path
        Ends in ``.nii`` or ``.nii.gz``.
    labels
        int32, axes ``like.label_axes``.
    like
        The image; its header is taken over where it came from a NIfTI file.
    """
    array = labels.transpose()
    affine = like.affine
    steps = (like.spacing or (1.0,) * len(like.spatial_axes))[::-1]
    header_type, image_type = _TYPES[len(like.header or b"")]
    header = header_type(like.header)
    if affine is None and like.header is None:
        affine = np.diag([*steps, *(1.0,) * (4 - len(steps))])
    elif affine is None:
        header["pixdim"][1 : 1 + len(steps)] = steps
    header.set_data_dtype(np.int32)
    header.set_slope_inter(1.0, 0.0)
    header["cal_min"] = header["cal_max"] = 0
    header.set_intent("label")
    image = image_type(array, affine, header)
    image.header.set_xyzt_units(
        {"mm": "mm", "µm": "micron", "pixel": "unknown"}[like.unit], header.get_xyzt_units()[1]
    )
    image.to_filename(path)


def count_axes(path: Path) -> int:
    """Number of axes of a NIfTI file, those of length 1 at the end left out; 0 for a file that is damaged."""
    try:
        file: Any = nib.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error):
        return 0
    shape: tuple[int, ...] = file.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return len(shape)


def is_nifti(start: bytes) -> bool:
    """Whether a file's (uncompressed) first bytes are a NIfTI header."""
    return start[:4] in (b"\x5c\x01\0\0", b"\0\0\x01\x5c", b"\x1c\x02\0\0", b"\0\0\x02\x1c")


def first_bytes(packed: bytes) -> bytes:
    """Uncompress the beginning of a gzip stream, at most a few hundred bytes."""
    try:
        return zlib.decompressobj(wbits=31).decompress(BytesIO(packed).read(4096), 400)
    except zlib.error:
        return b""
