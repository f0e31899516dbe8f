"""Medical volumes in napari: NIfTI, NRRD and DICOM files as layers at their place in the world, and back.

World coordinates are millimetres to the left, to the back and upwards (LPS, as in DICOM), in napari's order
z, y, x: on the screen the nose is up and the patient's left is on the right. Voxels are neither moved nor
interpolated; array axes are put in the order of the world's where they are stored otherwise (sagittal
slices).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray

from napari_xlstm_unet.geometry import KEY, SPACE, TO_RAS, anatomical_affine, world_matrix
from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image, image_stem, read_image, write_labels
from xlstm_unet.images.dicom_files import list_series
from xlstm_unet.images.read import LABEL_ENDING

LayerData = tuple[Any, dict[str, Any], str]


def get_reader(path: str | Sequence[str]) -> Callable[[str], list[LayerData]] | None:
    """Return the reader for napari: of one file; None for several, which are no stack here."""
    return read_volume if isinstance(path, str) else None


def read_volume(path: str) -> list[LayerData]:
    """Read a file as a layer: of a DICOM file its series, of a zip archive every series in it.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    place = Path(path)
    if place.suffix.lower() == ".zip":
        return [(*layer_of(read_image(place, series=each.uid)), "image") for each in list_series(place)]
    if place.suffix.lower() == ".dcm":
        each = next(each for each in list_series(place.parent) if place.name in each.files)
        return [(*layer_of(read_image(place.parent, series=each.uid)), "image")]
    image = _read(place)
    kind = "labels" if image_stem(path).endswith(LABEL_ENDING) and image.array.dtype.kind in "iu" else "image"
    return [(*layer_of(image), kind)]


def _read(path: Path) -> Image:
    """Read a volume; one of four axes frame by frame, which the dock shows and lets the user correct."""
    try:
        return read_image(path)
    except ImageError as error:
        try:
            return read_image(path, axes="TZYX")
        except ImageError:
            raise error from None


def layer_of(image: Image) -> tuple[NDArray[Any], dict[str, Any]]:
    """Return array and keyword arguments of a layer that shows ``image`` where it lies."""
    spatial = len(image.spatial_axes)
    leading = image.array.ndim - spatial
    facts: dict[str, Any] = {"read_as": image.read_as}
    keywords: dict[str, Any] = {
        "name": image.name,
        "axis_labels": tuple(image.axes.lower()),
        "metadata": {KEY: facts},
    }
    if image.spacing is None or image.unit == "pixel":
        return image.array, keywords
    unit = {"mm": "mm", "µm": "um"}[image.unit]
    keywords["units"] = ("pixel",) * leading + (unit,) * spatial
    keywords["scale"] = (1.0,) * leading + image.spacing
    if image.affine is None or spatial < 3 or image.unit != "mm":
        return image.array, keywords
    matrix = (TO_RAS @ image.affine)[[2, 1, 0, 3]][:, [2, 1, 0, 3]]
    order = _nearest_order(matrix[:3, :3])
    matrix[:3, :3] = matrix[:3, list(order)]
    scale = np.linalg.norm(matrix[:3, :3], axis=0)
    affine = np.eye(image.array.ndim + 1)
    affine[leading:-1, leading:-1] = matrix[:3, :3] / scale
    affine[leading:-1, -1] = matrix[:3, 3]
    keywords["scale"] = (*(1.0,) * leading, *scale)
    keywords["affine"] = affine
    facts |= {"space": SPACE, "order": order}
    array = image.array.transpose([*range(leading), *(leading + axis for axis in order)])
    return array, keywords


def write_volume(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a labels layer as NIfTI at its place in the world, its axes in the order they were read in.

    Raises
    ------
    ImageError, OutputError
        If the layer is no plane or volume, or cannot be written.
    """
    layer = Layer.create(data, meta, "labels")
    assert isinstance(layer, Labels)
    labels = np.asarray(layer.data)
    if labels.ndim not in (2, 3):
        raise ImageError(
            f"The layer '{layer.name}' has {labels.ndim} axes, a volume has 3.", "Write one frame at a time."
        )
    axes = "ZYX"[-labels.ndim :]
    lengths = np.linalg.norm(world_matrix(layer)[:-1, :-1], axis=0)
    affine = anatomical_affine(layer, axes, (1.0,) * labels.ndim)
    facts = layer.metadata.get(KEY, {})
    if affine is not None and "order" in facts:
        back = [list(facts["order"]).index(axis) for axis in range(3)]
        labels, lengths = labels.transpose(back), lengths[back]
        affine = affine[:, [*(2 - axis for axis in reversed(back)), 3]]
    metric = all(str(unit.dimensionality) == "[length]" for unit in layer.units)
    unit = "mm" if metric and "milli" in str(layer.units[-1]) else "µm" if metric else "pixel"
    like = Image(labels, axes, tuple(lengths), unit, affine, name=layer.name)  # type: ignore[arg-type]
    write_labels(path, labels, like)
    return [path]


def _nearest_order(matrix: NDArray[np.float64]) -> tuple[int, ...]:
    """Return the array axis that runs most along each axis of the world."""
    cosines = np.abs(matrix) / np.linalg.norm(matrix, axis=0)
    return max(permutations(range(3)), key=lambda order: cosines[range(3), order].sum())
