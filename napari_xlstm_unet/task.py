"""What one press of the Segment button works on, free of napari objects so that a thread may use it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_xlstm_unet.channels import ChannelChoice
from napari_xlstm_unet.geometry import PixelSize, Window
from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image

Index = tuple[int, ...]
"""Place of a piece along T, and along Z for a 2D model."""

LARGEST = 2**25
"""Pixels of a plane or volume up to which it is handed over whole, for its intensities."""

_ORDER = "TCZYX"


@dataclass(frozen=True)
class Piece:
    """What the model is given at once.

    Parameters
    ----------
    array
        Pixels: channels first where there are several, then Z, Y, X.
    axes
        Its axes.
    region
        The part to segment along the spatial axes; None for all of it.
    """

    array: NDArray[Any]
    axes: str
    region: Window | None


@dataclass(frozen=True)
class Task:
    """A part of an image to segment, cut into pieces that the model takes at once.

    Parameters
    ----------
    image_name
        Name of the layer.
    image_id
        What tells it from others of the same name.
    array
        Array of the level to use: numpy, dask, zarr; only the pieces are read from it.
    axes
        Its axes, one letter each.
    window
        The part to segment, in pixels of this level.
    dimension
        2: a piece is one plane; 3: one volume.
    channels
        Which channels to give to the model.
    pixels
        Pixel sizes.
    factor
        Width of a pixel in pixels of the first level.
    placement
        Where a result layer lies (`napari_xlstm_unet.geometry.placement`).
    diameter
        Object diameter in pixels of the first level; None to let the model estimate it.
    stitch
        Whether objects of neighbouring slices are joined (2D model on a stack).
    affine
        4x4 matrix from voxels (x, y, z) of the whole array to right, anterior, superior in mm; None where
        that is not known.
    source
        What the reader said of where the image comes from, for writing results back.
    """

    image_name: str
    image_id: str
    array: Any
    axes: str
    window: Window
    dimension: int
    channels: ChannelChoice
    pixels: PixelSize
    factor: float = 1.0
    placement: dict[str, Any] = field(default_factory=dict)
    diameter: float | None = None
    stitch: bool = False
    affine: NDArray[np.float64] | None = None
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label_axes(self) -> str:
        """Axes of the result, in the order of the layer."""
        return self.axes.replace("C", "")

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return tuple(self._length(axis) for axis in self.label_axes)

    @property
    def piece_axes(self) -> str:
        """Axes along which there is one piece a step."""
        return "".join(axis for axis in ("TZ" if self.dimension == 2 else "T") if axis in self.axes)

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Pixel sizes along the axes of one piece."""
        sizes = self.pixels.spacing
        return sizes[-self.dimension :] if sizes is not None else None

    def pieces(self) -> Iterator[Index]:
        """Yield the place of every piece, in order."""
        yield from product(*(range(self._length(axis)) for axis in self.piece_axes))

    def read(self, index: Index) -> Piece:
        """Read one piece.

        Of an array in memory the whole plane or volume around the window is taken, unless it is huge, so that
        intensities are scaled as for the whole image; of any other only the window is read.

        Raises
        ------
        ImageError
            If its values are no numbers.
        """
        single = {
            axis: self._part(axis).start + step for axis, step in zip(self.piece_axes, index, strict=True)
        }
        if len(self.channels.indices) == 1:  # read no other channel
            single["C"] = self.channels.indices[0]
        left = [axis for axis in self.axes if axis not in single]
        spatial = [axis for axis in "ZYX" if axis in left]
        whole = {axis: slice(0, self.array.shape[self.axes.index(axis)]) for axis in spatial}
        around = (
            isinstance(self.array, np.ndarray) and math.prod(part.stop for part in whole.values()) <= LARGEST
        )
        taken = {**{axis: self._part(axis) for axis in left}, **(whole if around else {})}
        block = np.asarray(self.array[tuple(single.get(axis, taken.get(axis)) for axis in self.axes)])
        block = block.transpose([left.index(axis) for axis in _ORDER if axis in left])
        if block.dtype.kind not in "iuf":
            raise ImageError(
                f"The image '{self.image_name}' holds values of type {block.dtype}, expected numbers.",
                "Convert it first: right-click the layer, 'Convert data type'.",
            )
        if "C" in left:
            block = self.channels.take(block)
        if block.dtype.itemsize > 4 or block.dtype == np.float16:
            block = block.astype(np.float32)
        return Piece(
            array=np.ascontiguousarray(block, block.dtype.newbyteorder("=")),
            axes="C" * (block.ndim > len(spatial)) + "".join(spatial),
            region=tuple(self._part(axis) for axis in spatial) if around else None,
        )

    def read_all(self) -> Image:
        """Read the whole window with every channel, as the core's `Image`.

        Raises
        ------
        ImageError
            If it cannot be used.
        """
        array = np.asarray(self.array[self.window])
        return Image(
            array, self.axes, spacing=self.pixels.spacing, unit=self.pixels.unit, name=self.image_name
        )

    def affine_of(self, piece: Piece) -> list[list[float]] | None:
        """Return the affine of a piece's own grid, as the worker takes it; None for planes."""
        if self.affine is None or self.dimension == 2:
            return None
        matrix = self.affine.copy()
        if piece.region is None:
            matrix[:3, 3] += matrix[:3, :3] @ [self._part(axis).start for axis in "XYZ"]
        rows: list[list[float]] = matrix.tolist()
        return rows

    def canonical(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``labels`` with its axes in the order T, Z, Y, X."""
        return labels.transpose([self.label_axes.index(axis) for axis in "TZYX" if axis in self.label_axes])

    def empty_labels(self) -> NDArray[np.int32]:
        """Return zeros of the result's shape."""
        return np.zeros(self.label_shape, np.int32)

    def by_piece(self, labels: NDArray[Any]) -> NDArray[Any]:
        """Return a view of ``labels`` whose first axes are those of the pieces' index."""
        order = self.piece_axes + "".join(
            axis for axis in "ZYX" if axis in self.axes and axis not in self.piece_axes
        )
        return labels.transpose([self.label_axes.index(axis) for axis in order])

    def place(self, index: Index) -> str:
        """Return where a piece lies in the whole image, in words; empty where there is only one."""
        steps = (
            f"{axis} {self._part(axis).start + step}"
            for axis, step in zip(self.piece_axes, index, strict=True)
        )
        return ", ".join(steps)

    def check_size(self, limit_gb: float) -> None:
        """Refuse work that would read or produce more than ``limit_gb`` at once.

        Raises
        ------
        ImageError
            With the size and the way out.
        """
        piece = math.prod(self._length(axis) for axis in self.label_axes if axis not in self.piece_axes)
        channels = max(len(self.channels.indices), 1)
        largest = max(piece * channels * 4, math.prod(self.label_shape) * 4) / 1e9
        if largest > limit_gb:
            raise ImageError(
                f"Segmenting this region of '{self.image_name}' takes arrays of {largest:.1f} GB; "
                f"the limit in the settings is {limit_gb:g} GB.",
                "Choose 'Visible area', 'This slice' or a box, or raise the limit.",
            )

    def _part(self, axis: str) -> slice:
        return self.window[self.axes.index(axis)]

    def _length(self, axis: str) -> int:
        return int(self._part(axis).stop - self._part(axis).start)
