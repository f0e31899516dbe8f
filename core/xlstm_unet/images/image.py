"""The image every front hands over: an array with named axes, spacing and place in the world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.images.limits import check_size

Array = NDArray[Any]
Unit = Literal["mm", "µm", "pixel"]

AXES = "TCZYX"
"""Every axis an image can have, in the order it is stored."""
AXES_HINT = "Pass axes, one letter an array axis: T time, C channel, Z, Y, X (for example 'ZYX' or 'YXC')."

LARGEST_LABEL = int(np.iinfo(np.int32).max)

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, eq=False)
class Image:
    """An image: pixels, the meaning of their axes, and their size and place in the world.

    Parameters
    ----------
    array
        Integers or floats of at most 64 bits, finite, not empty. Stored in the order T, C, Z, Y, X and in
        native byte order, without a copy where it is so already.
    axes
        One letter of ``TCZYX`` for each axis of ``array``, each at most once, in any order; Y and X are
        needed.
    spacing
        Distance between neighbouring pixels along the spatial axes present, in the order Z, Y, X,
        in ``unit``; None where it is not known.
    unit
        Unit of ``spacing`` and of world coordinates.
    affine
        4x4 matrix from pixel indices to world coordinates. As in NIfTI and in 3D Slicer (IJK to RAS) it takes
        (x, y, z, 1), the reverse of the array's order, and gives right, anterior, superior in ``unit``.
    name
        What to call the image: the stem of its file, a layer name.
    read_as
        One sentence saying how the axes were read and what was changed in reading.
    header
        NIfTI header of the file that the image came from, for writing results back; None for other files.

    Raises
    ------
    ImageError
        If the array or its description cannot be used; the message names what is wrong.
    """

    array: Array
    axes: str
    spacing: tuple[float, ...] | None = None
    unit: Unit = "pixel"
    affine: Array | None = None
    name: str = "image"
    read_as: str = ""
    header: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        array = _checked_array(self.array, self.name)
        axes = _checked_axes(self.axes, array, self.name)
        stored = "".join(axis for axis in AXES if axis in axes)
        array = array.transpose([axes.index(axis) for axis in stored])
        set_field = object.__setattr__
        set_field(self, "array", array)
        set_field(self, "axes", stored)
        set_field(self, "spacing", _checked_spacing(self.spacing, self.spatial_axes, self.name))
        set_field(self, "affine", _checked_affine(self.affine, self.name))
        if self.unit not in ("mm", "µm", "pixel"):
            raise ImageError(f"{self.name}: unit is {self.unit!r}, expected 'mm', 'µm' or 'pixel'.")
        if not self.read_as:
            set_field(self, "read_as", f"Axes {stored} as given.")

    @property
    def spatial_axes(self) -> str:
        """``ZYX`` or ``YX``."""
        return "".join(axis for axis in self.axes if axis in "ZYX")

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Pixels along the spatial axes, in the order Z, Y, X."""
        return tuple(n for n, axis in zip(self.array.shape, self.axes, strict=True) if axis in "ZYX")

    @property
    def channels(self) -> int:
        """Number of channels; 1 where there is no channel axis."""
        return self._length("C")

    @property
    def frames(self) -> int:
        """Number of time points; 1 where there is no time axis."""
        return self._length("T")

    @property
    def label_axes(self) -> str:
        """Axes of a label array on this image's grid: all but C."""
        return self.axes.replace("C", "")

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of a label array on this image's grid."""
        return tuple(n for n, axis in zip(self.array.shape, self.axes, strict=True) if axis != "C")

    def parts(self, dimension: Literal[2, 3]) -> Iterator[tuple[tuple[int, ...], Image]]:
        """Cut into what a 2D or 3D model takes at once: single planes (2) or single volumes (3).

        Yields
        ------
        index
            Where the part lies: ``labels[index]`` is its place in an array of shape ``label_shape``.
        part
            An image of axes YX or CYX (2), ZYX or CZYX (3; YX or CYX where there is no Z). It shares memory.
        """
        taken = [axis for axis in self.label_axes if axis == "T" or (axis == "Z" and dimension == 2)]
        flat = "Z" in taken
        for index in product(*(range(self._length(axis)) for axis in taken)):
            place = dict(zip(taken, index, strict=True))
            part = replace(
                self,
                array=self.array[tuple(place.get(axis, slice(None)) for axis in self.axes)],
                axes="".join(axis for axis in self.axes if axis not in place),
                spacing=self.spacing[1:] if flat and self.spacing else self.spacing,
                affine=None if flat else self.affine,
                header=None if place else self.header,
            )
            yield index, part

    def check_labels(self, labels: ArrayLike) -> Array:
        """Return labels as an array if they fit this image.

        Parameters
        ----------
        labels
            Integers from 0 to the largest int32, axes ``label_axes``.

        Raises
        ------
        ImageError
            If shape, dtype or range is another.
        """
        array: Array = np.asarray(labels)
        if array.shape != self.label_shape:
            raise ImageError(
                f"{self.name}: labels of shape {array.shape}, expected {self.label_shape} {self.label_axes}.",
                "Both must lie on the same grid.",
            )
        if array.dtype.kind not in "iu":
            raise ImageError(f"{self.name}: labels of dtype {array.dtype}, expected integers.")
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > LARGEST_LABEL:
            raise ImageError(f"{self.name}: labels from {low} to {high}, expected 0 to {LARGEST_LABEL}.")
        return array

    def _length(self, axis: str) -> int:
        return int(self.array.shape[self.axes.index(axis)]) if axis in self.axes else 1


def as_image(source: Any, axes: str | None = None, *, name: str = "image") -> Image:
    """Make an `Image` of an array, with the axes given or, where they are plain, inferred.

    Without ``axes``: two axes are YX; three with a last axis of 3 or 4 in 8 or 16-bit unsigned integers are
    YXC (colour); other three are ZYX. Anything else must be told. An `Image` is returned as it is.

    Parameters
    ----------
    source
        An array, anything that numpy makes one of, or an `Image`.
    axes
        One letter of ``TCZYX`` for each axis; with an `Image`, a new reading of its array's axes.
    name
        Name of the image, used in messages.

    Raises
    ------
    ImageError
        If the array is empty, has values that are not finite, a dtype that is no number, more than five axes,
        or axes that cannot be told.
    """
    if isinstance(source, Image):
        if axes is None or axes.upper() == source.axes:
            return source
        return Image(source.array, axes, name=source.name)
    if np.ma.isMaskedArray(source):
        raise ImageError(f"{name}: a masked array, expected a plain one.", "Fill it first: array.filled(0).")
    if hasattr(source, "shape") and hasattr(source, "dtype"):
        check_size(name, tuple(source.shape), getattr(source.dtype, "itemsize", 1))
    try:
        array = np.asarray(source)
    except (TypeError, ValueError) as error:
        raise ImageError(
            f"{name}: a {type(source).__name__} that numpy cannot make an array of ({error}).",
            "Pass a numpy array.",
        ) from error
    if axes is not None:
        return Image(array, axes, name=name)
    axes, read_as = _inferred_axes(array, name)
    return Image(array, axes, name=name, read_as=read_as)


def _inferred_axes(array: Array, name: str) -> tuple[str, str]:
    shape = array.shape
    if array.ndim == 2:
        return "YX", "Two axes, read as YX."
    if array.ndim == 3:
        colour = shape[-1] in (3, 4)
        if colour and array.dtype in (np.uint8, np.uint16):
            return "YXC", f"Last axis has {shape[-1]} values, read as colour: YXC."
        if not colour or array.dtype.kind not in "f":
            return "ZYX", "Three axes, read as ZYX."
    if array.ndim < 2 or array.ndim > len(AXES):
        raise ImageError(
            f"{name}: array of shape {shape} has {array.ndim} axes, expected 2 to {len(AXES)}.",
            "Pass a 2D or 3D image, with time or channel axes if it has them.",
        )
    raise ImageError(
        f"{name}: the axes of an array of shape {shape} and dtype {array.dtype} can be read in several ways.",
        AXES_HINT,
    )


def _checked_array(array: Any, name: str) -> Array:
    if not isinstance(array, np.ndarray):
        raise ImageError(
            f"{name}: array is a {type(array).__name__}, expected a numpy array.", "Use as_image."
        )
    checked: Array = array.view(np.ndarray)
    if checked.dtype.kind not in "iuf" or checked.dtype.itemsize > 8:
        what = "object" if checked.dtype.kind == "O" else str(checked.dtype)
        hint = "Convert it, for example with array.astype(np.float32)."
        if checked.dtype.kind == "b":
            hint = "It looks like a mask; if it is the image, convert it with array.astype(np.uint8)."
        elif checked.dtype.kind == "c":
            hint = "Take the magnitude: numpy.abs(array)."
        raise ImageError(f"{name}: dtype is {what}, expected integers or floats of 8 to 64 bits.", hint)
    if checked.size == 0:
        raise ImageError(
            f"{name}: image of shape {checked.shape} is empty.", "Check how it was cropped or read."
        )
    check_size(name, checked.shape, checked.dtype.itemsize)
    if not array.dtype.isnative:
        checked = np.asarray(checked, dtype=checked.dtype.newbyteorder("="))
    if checked.dtype.kind == "f":
        _check_finite(checked, name)
    return checked


def _check_finite(array: Array, name: str) -> None:
    low, high = float(array.min()), float(array.max())
    if np.isfinite(low) and np.isfinite(high):
        if max(-low, high) > _LARGEST:
            raise ImageError(
                f"{name}: values from {low:.3g} to {high:.3g} exceed the range of float32 (±{_LARGEST:.3g}).",
                "Divide them by a constant.",
            )
        return
    nans = int(np.isnan(array).sum())
    infinities = int(np.isinf(array).sum())
    found = " and ".join(
        text for n, text in ((nans, f"{nans} NaN"), (infinities, f"{infinities} infinite")) if n
    )
    raise ImageError(
        f"{name}: {found} values among {array.size}, expected finite numbers.",
        "Replace them first, for example with numpy.nan_to_num.",
    )


def _checked_axes(axes: str, array: Array, name: str) -> str:
    axes = str(axes).upper()
    if len(axes) != array.ndim:
        raise ImageError(
            f"{name}: axes {axes!r} for an array of shape {array.shape}, expected {array.ndim} letters.",
            AXES_HINT,
        )
    if set(axes) - set(AXES) or len(set(axes)) != len(axes) or not {"Y", "X"} <= set(axes):
        raise ImageError(
            f"{name}: axes {axes!r}, expected letters of {AXES}, each at most once, with Y and X among them.",
            AXES_HINT,
        )
    return axes


def _checked_spacing(
    spacing: tuple[float, ...] | None, spatial_axes: str, name: str
) -> tuple[float, ...] | None:
    if spacing is None:
        return None
    values = tuple(float(value) for value in spacing)
    if len(values) != len(spatial_axes) or not all(np.isfinite(v) and v > 0 for v in values):
        raise ImageError(
            f"{name}: spacing is {values}, expected {len(spatial_axes)} positive numbers ({spatial_axes}).",
            "Leave it out where the pixel size is not known.",
        )
    return values


def _checked_affine(affine: Array | None, name: str) -> Array | None:
    if affine is None:
        return None
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) == 0:
        raise ImageError(
            f"{name}: affine of shape {matrix.shape} cannot be used, expected an invertible 4x4 matrix."
        )
    return matrix
