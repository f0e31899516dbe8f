"""Inference exactly as nnU-Net 2 does it, for models that were imported from it.

The image is cropped to what is not zero, normalised, resampled, filled up with zeros to the patch size and
read in tiles that overlap by half. Logits are averaged, brought back to the image's grid, and become
probabilities there. Source: F. Isensee et al., nnU-Net, Nature Methods 2021.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import expit, softmax

from xlstm_unet.images import Image, Normaliser, channels_first, fit_normalisation, resample_volume
from xlstm_unet.images.volumes import resampled_shape
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.segment.scale import IN_MICROMETRES, Scale, given_scale, size_text

Slices = tuple[slice, ...]
Sides = tuple[float, float, float]

_PLANE = 999.0
"""Thickness that nnU-Net gives a picture: it is never resampled across."""
_CLOSE = 1e-3
"""Resampling by less is not worth a note."""


class NnunetJob:
    """The maps of an image, volume by volume; see `xlstm_unet.segment.job.Job`, whose place it takes.

    Parameters
    ----------
    image
        What is segmented.
    reference
        Image of the same axes and frames that intensities are scaled by: ``image`` or what it was cut from.
    predictor
        A model of the pipeline ``nnunet``.
    diameter
        Refused, as by every model without an object diameter.
    mirror, on_progress, cancel
        As in `Segmenter`.

    Attributes
    ----------
    scale
        How the image is resampled.
    notes
        What the user should know.

    Raises
    ------
    ImageError
        If the image does not fit the model.
    ModelError
        If a diameter is given.
    """

    def __init__(
        self,
        image: Image,
        reference: Image,
        predictor: Predictor,
        *,
        diameter: float | None = None,
        mirror: bool = False,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
    ) -> None:
        self.spec = predictor.spec
        self.notes: list[str] = []
        self._predictor = predictor
        self._mirror, self._on_progress, self._cancel = mirror, on_progress, cancel
        self._parts = list(image.parts(3))
        self._whole = [part for _, part in reference.parts(3)]
        self.scale = self._scale(self._parts[0][1], diameter)

    def maps(self) -> Iterator[tuple[tuple[int, ...], NDArray[np.float16] | None, OnProgress | None]]:
        """Yield each frame's place in the labels, its probabilities on its own grid, and a callback.

        The maps are None for a frame without any contrast: nothing can be found there.
        """
        constant = 0
        for number, (index, part) in enumerate(self._parts):
            check_cancelled(self._cancel)
            pixels = self._pixels(part)
            if all(channel.min() == channel.max() for channel in pixels):
                constant += 1
                yield index, None, self._on_progress
                continue
            maps = self._frame_maps(pixels, self._pixels(self._whole[number]), self._spacing(part))
            yield index, self._to_array(maps, part), self._on_progress
        if constant:
            what = "The image is" if len(self._parts) == 1 else f"{constant} of {len(self._parts)} frames are"
            self.notes.append(f"{what} constant: nothing to find.")

    def _frame_maps(self, pixels: NDArray[Any], whole: NDArray[Any], spacing: Sides) -> NDArray[np.float16]:
        """Return probabilities (outputs, *spatial) of a volume in the axes of the network."""
        result = np.zeros((self.spec.output_channels, *pixels.shape[1:]), np.float16)
        if not self.spec.regions:
            result[0] = 1
        box = _bounding_box(pixels)
        if box is None:
            return result
        array = self._normalised(pixels[(slice(None), *box)], whole)
        shape = array.shape[1:]
        target = self._target(spacing)
        size = resampled_shape(shape, spacing, target)
        logits = self._logits(resample_volume(array, spacing, target, shape=size, cancel=self._cancel))
        inside = result[(slice(None), *box)]
        for source, place in zip(logits, inside, strict=True):
            # Channel by channel: in float32 all of them would be the largest thing in memory.
            place[...] = resample_volume(
                source[np.newaxis],
                target,
                spacing,
                shape=shape,
                kind="probabilities",
                cancel=self._cancel,
            )[0]
        self._to_probabilities(inside)
        return result

    def _logits(self, array: NDArray[np.float32]) -> NDArray[np.float16]:
        """Return the logits of a volume (C, Z, Y, X) in the axes and at the scale of the network."""
        if self.spec.dimension == 3:
            return self._filled_up(array, self._on_progress)
        planes = array.shape[1]
        result = np.empty((self.spec.output_channels, *array.shape[1:]), np.float16)
        for plane in range(planes):
            result[:, plane] = self._filled_up(array[:, plane], self._reporting(plane, planes))
        return result

    def _filled_up(self, array: NDArray[np.float32], report: OnProgress | None) -> NDArray[np.float16]:
        """Run the network on an array that is filled up with zeros, evenly, to its tile."""
        shape = array.shape[1:]
        missing = [max(0, t - n) for t, n in zip(self._predictor.tile, shape, strict=True)]
        rims = [(n // 2, n - n // 2) for n in missing]
        array = np.pad(array, [(0, 0), *rims]) if any(missing) else array
        logits = self._predictor.logits(array, mirror=self._mirror, on_progress=report, cancel=self._cancel)
        inside = tuple(slice(first, first + n) for (first, _), n in zip(rims, shape, strict=True))
        return logits[(slice(None), *inside)]

    def _normalised(self, pixels: NDArray[Any], whole: NDArray[Any]) -> NDArray[np.float32]:
        """Normalise with what the whole image says, cropped as it would be."""
        schemes = self.spec.normalisation
        masked = any(scheme.masked for scheme in schemes)
        box = _bounding_box(whole)
        assert box is not None
        whole = whole[(slice(None), *box)]
        seen = _filled_mask(whole) if masked else None
        here = _filled_mask(pixels) if masked else None
        array = np.empty(pixels.shape, np.float32)
        for channel, (source, values) in enumerate(zip(pixels, whole, strict=True)):
            scheme = schemes[channel % len(schemes)]
            known = values[seen] if scheme.masked and seen is not None else values
            normaliser: Normaliser = fit_normalisation(known[np.newaxis], (scheme,))
            array[channel] = normaliser(source[np.newaxis], cancel=self._cancel)[0]
            if scheme.masked and here is not None:
                array[channel][~here] = 0
        return array

    def _to_probabilities(self, logits: NDArray[np.float16]) -> None:
        """Turn logits (outputs, *spatial) into probabilities, in place, a slab at a time."""
        for slab in range(logits.shape[1]):
            values: NDArray[np.float32] = logits[:, slab].astype(np.float32)
            if self.spec.regions:
                logits[:, slab] = expit(values)
            else:
                logits[:, slab] = softmax(values, axis=0)

    def _pixels(self, part: Image) -> NDArray[Any]:
        """Return a frame as (C, *three spatial axes of the network)."""
        spec = self.spec
        if spec.dimension == 2 and len(part.spatial_axes) == 3:
            # A stack of planes, each of which fits.
            spec = spec.model_copy(update={"dimension": 3})
        pixels = channels_first(part, spec)
        if pixels.ndim == 3:
            pixels = pixels[:, np.newaxis]
        return pixels.transpose(0, *(1 + axis for axis in self.spec.transpose))

    def _to_array(self, maps: NDArray[np.float16], part: Image) -> NDArray[np.float16]:
        """Return maps in the axes of the image."""
        maps = maps.transpose(0, *(1 + self.spec.transpose.index(axis) for axis in range(3)))
        return maps if len(part.spatial_axes) == 3 else maps[:, 0]

    def _spacing(self, part: Image) -> Sides:
        """Return the sides of a voxel in the model's unit, axes of the network; unknown, the model's."""
        spec = self.spec
        if spec.spacing is None or spec.spacing_unit is None or part.spacing is None or part.unit == "pixel":
            return self._target((1.0, 1.0, 1.0))
        unit = IN_MICROMETRES[part.unit] / IN_MICROMETRES[spec.spacing_unit]
        sides = [_PLANE] * (3 - len(part.spacing)) + [side * unit for side in part.spacing]
        first, second, third = (sides[axis] for axis in spec.transpose)
        return first, second, third

    def _target(self, sides: Sides) -> Sides:
        """Return the sides that voxels of such sides are brought to; a 2D model does not resample across."""
        if self.spec.spacing is None:
            return sides
        first, second, third = (*sides[: 3 - self.spec.dimension], *self.spec.spacing)
        return first, second, third

    def _scale(self, part: Image, diameter: float | None) -> Scale:
        """Return how a volume is resampled, in the axes of the image."""
        if diameter is not None:
            given_scale(part, self.spec, diameter)
        sides = self._spacing(part)
        target = self._target(sides)
        factors = tuple(
            sides[self.spec.transpose.index(axis)] / target[self.spec.transpose.index(axis)]
            for axis in range(3 - len(part.spatial_axes), 3)
        )
        note = ""
        if self.spec.spacing is not None and (part.spacing is None or part.unit == "pixel"):
            text = size_text(self.spec.spacing, self.spec.spacing_unit)
            note = f"Spacing unknown: taken as {text}, the model's."
        elif any(abs(factor - 1) > _CLOSE for factor in factors):
            unit = self.spec.spacing_unit
            note = f"Resampled from {size_text(sides, unit)} to {size_text(target, unit)}."
        scale = Scale(factors, note=note)
        scale.shape(part, part.spatial_shape, self.spec)
        return scale

    def _reporting(self, plane: int, planes: int) -> OnProgress | None:
        """Return a callback that names the plane where there are several."""
        on_progress = self._on_progress
        if on_progress is None or planes == 1:
            return on_progress
        name = f"slice {plane + 1} of {planes}"
        return lambda step: on_progress(Progress(f"{name}: {step.stage}", step.done, step.total))


def _bounding_box(pixels: NDArray[Any]) -> Slices | None:
    """Return the box around everything that is not zero in some channel; None where all is zero."""
    mask = (pixels != 0).any(axis=0)
    box: list[slice] = []
    for axis in range(mask.ndim):
        filled = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not filled.size:
            return None
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)


def _filled_mask(pixels: NDArray[Any]) -> NDArray[np.bool_]:
    """Return where some channel is not zero, and the holes inside it."""
    mask: NDArray[np.bool_] = ndimage.binary_fill_holes((pixels != 0).any(axis=0))
    return mask
