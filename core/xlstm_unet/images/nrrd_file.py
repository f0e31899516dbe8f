"""Reading NRRD volumes, and writing segmentations that 3D Slicer opens (``.seg.nrrd``).

NRRD lists axes with the fastest first, so its arrays are taken in reverse: Z, Y, X. World coordinates become
right, anterior, superior, whatever the file's own are.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError, OutputError
from xlstm_unet.files import atomic_path
from xlstm_unet.images.image import Array, Image, Unit
from xlstm_unet.images.limits import check_size
from xlstm_unet.spec import Label

MAGIC = b"NRRD000"
SEGMENTATION_SUFFIX = ".seg.nrrd"

_TYPES = {
    "signed char": "i1", "int8": "i1", "uchar": "u1", "unsigned char": "u1", "uint8": "u1",
    "short": "i2", "int16": "i2", "ushort": "u2", "unsigned short": "u2", "uint16": "u2",
    "int": "i4", "int32": "i4", "uint": "u4", "unsigned int": "u4", "uint32": "u4",
    "longlong": "i8", "long long": "i8", "int64": "i8", "ulonglong": "u8", "unsigned long long": "u8",
    "uint64": "u8", "float": "f4", "double": "f8",
}  # fmt: skip
_TO_RAS = {
    "right-anterior-superior": (1, 1, 1), "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1),
}  # fmt: skip
_UNITS: dict[str, Unit] = {"mm": "mm", "millimeter": "mm", "um": "µm", "µm": "µm", "micron": "µm"}
_CHANNEL_KINDS = ("vector", "covariant-vector", "rgb-color", "rgba-color", "3-color", "4-color")
_HINT = "Copy or export it again, as NRRD with raw or gzip encoding."


def read_nrrd(path: Path, name: str, limit: int | None, axes: str | None = None) -> Image:
    """Read a NRRD file with its data in it, or a header with one data file beside it.

    Raises
    ------
    ImageError
        If the file is damaged, too large or encoded otherwise, or the meaning of a fourth axis is not told.
    """
    import nrrd

    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            header = nrrd.read_header(file)
            array = _read_array(file, header, path, name, limit)
    except (nrrd.NRRDError, ValueError, KeyError, IndexError, UnicodeDecodeError, zlib.error) as error:
        raise ImageError(f"{name}: NRRD file is damaged ({' '.join(str(error).split())}).", _HINT) from error
    usual = _axes(header, array.shape, name, axes)
    spacing, unit, affine, said = _geometry(header, usual, name)
    if axes is not None and axes != usual:
        if axes.translate({ord("T"): None, ord("C"): None}) != usual.translate(
            {ord("T"): None, ord("C"): None}
        ):
            spacing, unit, affine, said = None, "pixel", None, ", voxel size and position left out"
        usual = axes
    return Image(array, usual, spacing, unit, affine, name, f"NRRD: axes {usual} (z, y, x reversed){said}.")


def _read_array(file: BinaryIO, header: dict[str, Any], path: Path, name: str, limit: int | None) -> Array:
    kind = str(header["type"]).lower().removesuffix("_t").removesuffix(" int")
    kind = kind if kind in _TYPES else kind.removeprefix("signed ")
    if kind not in _TYPES:
        raise ImageError(f"{name}: NRRD values of type {header['type']!r} are not read.", _HINT)
    dtype = np.dtype(_TYPES[kind]).newbyteorder(">" if header.get("endian") == "big" else "<")
    shape = tuple(int(n) for n in header["sizes"])[::-1]
    if not shape or min(shape) < 1:
        raise ImageError(f"{name}: NRRD image of shape {shape} is empty.", "Export it again.")
    check_size(name, shape, dtype.itemsize, limit)
    encoding = str(header["encoding"]).lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ImageError(f"{name}: NRRD encoding {encoding!r} is not read.", _HINT)
    skipped = [key for key in ("line skip", "lineskip", "byte skip", "byteskip") if header.get(key)]
    if skipped:
        raise ImageError(f"{name}: NRRD field {skipped[0]!r} is not read.", _HINT)
    wanted = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    detached = header.get("data file", header.get("datafile"))
    if detached is None:
        data = _read_bytes(file, wanted, encoding != "raw")
    else:
        beside = path.with_name(str(detached))
        if Path(str(detached)).name != str(detached) or not beside.is_file():
            raise ImageError(
                f"{name}: its data file {detached!r} is not beside it.", "Copy both into one folder."
            )
        with beside.open("rb") as other:
            data = _read_bytes(other, wanted, encoding != "raw")
    if len(data) < wanted:
        raise ImageError(f"{name}: NRRD file is cut off ({len(data)} of {wanted} bytes).", _HINT)
    return np.frombuffer(data, dtype).reshape(shape)


def _read_bytes(file: BinaryIO, wanted: int, packed: bool) -> bytes:
    """Read at most ``wanted`` bytes, however much a compressed stream would unpack to."""
    if not packed:
        return file.read(wanted)
    return zlib.decompressobj(wbits=47).decompress(file.read(), wanted)


def _axes(header: dict[str, Any], shape: tuple[int, ...], name: str, told: str | None) -> str:
    """Return a letter for each array axis (slowest first)."""
    count = len(shape)
    kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * count)][::-1]
    directions = header.get("space directions")
    if directions is not None:
        spatial = [_is_direction(row) for row in directions][::-1]
    else:
        spatial = [kind in ("domain", "space") for kind in kinds]
    if sum(spatial) in (2, 3):
        others = [
            "C" if kinds[i] in _CHANNEL_KINDS else "T" if kinds[i] == "time" else "?"
            for i in range(count)
            if not spatial[i]
        ]
        letters = iter("ZYX"[-sum(spatial) :])
        rest = iter(others)
        found = "".join(next(letters) if s else next(rest) for s in spatial)
        if "?" not in found and len(set(found)) == len(found):
            return found
    if told is not None and len(told) == count:
        return told
    raise ImageError(
        f"{name}: NRRD image of shape {shape} (slowest axis first) with kinds {', '.join(kinds)}: "
        "it is not said what each axis is.",
        "Pass axes, such as TZYX for time points or CZYX for channels.",
    )


def _is_direction(row: Any) -> bool:
    return row is not None and bool(np.isfinite(np.asarray(row, dtype=float)).all())


def _geometry(
    header: dict[str, Any], axes: str, name: str
) -> tuple[tuple[float, ...] | None, Unit, NDArray[np.float64] | None, str]:
    """Return spacing, unit, affine, and what to say of them."""
    spatial = [axis in "ZYX" for axis in axes]
    directions, space = header.get("space directions"), str(header.get("space", "")).lower()
    if directions is None:
        steps = header.get("spacings")
        if steps is None:
            return None, "pixel", None, ", voxel size not stated"
        sizes = [float(step) for step, inside in zip(steps[::-1], spatial, strict=True) if inside]
        units = [u for u, inside in zip(list(header.get("units", []))[::-1], spatial, strict=False) if inside]
        columns = None
    else:
        rows = [row for row, inside in zip(directions[::-1], spatial, strict=True) if inside]
        columns = np.array(rows[::-1], dtype=float).T
        sizes = [float(size) for size in np.sqrt((columns**2).sum(axis=0))[::-1]]
        units = list(header.get("space units", []))
    unit = _UNITS.get(str(units[0]).strip('" ').lower()) if units else None
    if not all(np.isfinite(size) and size > 0 for size in sizes):
        raise ImageError(
            f"{name}: voxel size in the header is {tuple(sizes)}, expected positive numbers.",
            "Repair the header: its world coordinates cannot be used.",
        )
    if columns is None or space not in _TO_RAS or columns.shape != (3, 3):
        if unit is None:
            return None, "pixel", None, ", unit not stated, voxel size left out"
        return tuple(sizes), unit, None, ", place in the body not stated"
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = np.asarray(header.get("space origin", np.zeros(3)), dtype=float)
    return tuple(sizes), unit or "mm", np.diag([*_TO_RAS[space], 1.0]) @ affine, ""


def write_segmentation(
    path: Path | str, labels: NDArray[np.int32], like: Image, segments: Sequence[Label]
) -> None:
    """Write labels as a segmentation for 3D Slicer: on the image's grid, with names, colours and codes.

    Parameters
    ----------
    path
        Ends in ``.seg.nrrd``.
    labels
        int32 (Z, Y, X) or (Y, X), the grid of ``like``.
    like
        The image that the labels belong to; without affine it is put at the origin.
    segments
        One for each value; values that do not occur are empty segments.

    Raises
    ------
    OutputError
        If the labels have time points, or the file cannot be written.
    """
    import nrrd

    path = Path(path)
    if "T" in like.label_axes and like.frames > 1:
        raise OutputError(
            f"{path}: {like.frames} time points, a segmentation file holds one.", "Segment one at a time."
        )
    array = np.asarray(like.check_labels(labels)).reshape((-1, *like.spatial_shape[-2:]))
    top = max(int(array.max()), *(segment.value for segment in segments))
    kind = np.min_scalar_type(top) if top < 256 else np.dtype(np.int16 if top < 2**15 else np.int32)
    affine = _placed(like)
    to_lps = np.diag([-1.0, -1.0, 1.0])
    header: dict[str, Any] = {
        "space": "left-posterior-superior",
        "space directions": (to_lps @ affine[:3, :3]).T,
        "space origin": to_lps @ affine[:3, 3],
        "kinds": ["domain"] * 3,
        "encoding": "gzip",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    extent = " ".join(f"0 {n - 1}" for n in array.shape[::-1])
    for number, segment in enumerate(segments):
        header |= {f"Segment{number}_{key}": value for key, value in _segment_fields(segment, extent).items()}
    with atomic_path(path) as temporary:
        nrrd.write(str(temporary), array.astype(kind), header, index_order="C", compression_level=6)


def _segment_fields(segment: Label, extent: str) -> dict[str, str]:
    tags = "Segmentation.Status:inprogress|"
    if segment.terminology:
        tags = f"TerminologyEntry:{segment.terminology}|{tags}"
    return {
        "ID": f"Segment_{segment.value}",
        "Name": " ".join(segment.name.split()),
        "NameAutoGenerated": "0",
        "Color": " ".join(f"{part / 255:.6g}" for part in segment.color),
        "ColorAutoGenerated": "0",
        "LabelValue": str(segment.value),
        "Layer": "0",
        "Extent": extent,
        "Tags": tags,
    }


def _placed(like: Image) -> NDArray[np.float64]:
    """Return the affine of an image in mm; without one, its voxels from the origin on."""
    if like.affine is None:
        steps = (like.spacing or (1.0,) * len(like.spatial_axes))[::-1]
        affine = np.diag([*steps, *(1.0,) * (4 - len(steps))])
    else:
        affine = like.affine.copy()
    if like.unit == "µm":
        affine[:3] *= 1e-3
    return affine
