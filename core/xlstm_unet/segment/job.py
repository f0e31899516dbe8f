"""One image on its way through a model: plane by plane, or volume by volume."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images import Image, Normaliser, channels_first, fit_normalisation, resample, resample_volume
from xlstm_unet.images.prepare import check_dimension
from xlstm_unet.images.volumes import Kind
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment.diameter import estimate_diameter, found_as_is
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.segment.scale import Scale, diameter_scale, given_scale

Index = tuple[int, ...]


@dataclass(frozen=True)
class _Prepared:
    """A part whose preparation, and perhaps prediction, the estimate of the diameter has done already."""

    number: int
    array: NDArray[np.float32]
    maps: NDArray[np.float16] | None


class Job:
    """The maps of an image, part by part.

    Parameters
    ----------
    image
        What is segmented.
    reference
        Image of the same axes and frames that intensities are scaled by: ``image`` or what it was cut from.
    predictor
        The model.
    diameter
        Object diameter in pixels of the image, if given.
    mirror, on_progress, cancel
        As in `Segmenter`.

    Attributes
    ----------
    scale
        How the image is resampled.
    notes
        What the user should know.
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
        self._image, self._reference = image, reference
        self._mirror, self._on_progress, self._cancel = mirror, on_progress, cancel
        self._parts = list(image.parts(self.spec.dimension))
        self._normaliser: tuple[int, Normaliser] | None = None
        self._ready: _Prepared | None = None
        check_dimension(self._parts[0][1], self.spec)
        self.scale = given_scale(self._parts[0][1], self.spec, diameter) or self._estimated_scale()

    def maps(self) -> Iterator[tuple[Index, NDArray[np.float16] | None, OnProgress | None]]:
        """Yield each part's place in the labels, its maps on its own grid, and a callback for what follows.

        The maps are None for a part without any contrast: nothing can be found there.
        """
        constant = 0
        for number, (index, _) in enumerate(self._parts):
            check_cancelled(self._cancel)
            report = self._reporting(number)
            maps = self._part_maps(number, report)
            constant += maps is None
            yield index, maps, report
        if constant:
            what = "The image is" if len(self._parts) == 1 else f"{constant} of {len(self._parts)} slices are"
            self.notes.append(f"{what} constant: nothing to find.")

    def _part_maps(self, number: int, report: OnProgress | None) -> NDArray[np.float16] | None:
        """Return the maps of a part; the prepared image is let go before they are decoded."""
        if self._ready is not None and self._ready.number == number:
            array, maps = self._ready.array, self._ready.maps
            self._ready = None
            if maps is not None:
                return maps
            return self._predict(array, self._parts[number][1], report)
        prepared = self._prepare(number)
        return None if prepared is None else self._predict(prepared, self._parts[number][1], report)

    def _prepare(self, number: int) -> NDArray[np.float32] | None:
        """Return a part as (C, *spatial), normalised; None if it is constant."""
        index, part = self._parts[number]
        pixels = channels_first(part, self.spec)
        repeated = pixels.strides[0] == 0 and len(self.spec.normalisation) == 1
        distinct = pixels[:1] if repeated else pixels
        if all(channel.min() == channel.max() for channel in distinct):
            return None
        frame = index[0] if "T" in self._image.axes else 0
        if self._normaliser is None or self._normaliser[0] != frame:
            self._normaliser = frame, fit_normalisation(self._frame_pixels(frame), self.spec.normalisation)
        array = self._normaliser[1](distinct, cancel=self._cancel)
        return np.broadcast_to(array, pixels.shape)

    def _frame_pixels(self, frame: int) -> NDArray[np.generic]:
        """Return one time point of the reference as (C, *spatial); a stack is scaled as a whole."""
        image = self._reference
        array, axes = image.array, image.axes
        if "T" in axes:
            array, axes = array[frame], axes[1:]
        if "Z" in axes and self.spec.dimension == 2:
            depth = array.shape[axes.index("Z")]
            array = array.reshape(*array.shape[:-3], depth * array.shape[-2], array.shape[-1])
            axes = axes.replace("Z", "")
        pixels = channels_first(
            replace(image, array=array, axes=axes, spacing=None, affine=None, header=None), self.spec
        )
        return pixels[:1] if pixels.strides[0] == 0 else pixels

    def _predict(
        self, array: NDArray[np.float32], part: Image, report: OnProgress | None
    ) -> NDArray[np.float16]:
        """Run the model at its scale; return the maps on the part's grid."""
        shape = array.shape[1:]
        scaled = self.scale.shape(part, shape, self.spec)
        if scaled == shape:
            return self._predictor(array, mirror=self._mirror, on_progress=report, cancel=self._cancel)
        distinct = array[:1] if array.strides[0] == 0 else array
        distinct = self._resample(distinct, part, scaled, "image")
        maps = self._predictor(
            np.broadcast_to(distinct, (len(array), *scaled)),
            mirror=self._mirror,
            on_progress=report,
            cancel=self._cancel,
        )
        result = np.empty((len(maps), *shape), dtype=np.float16)
        for source, target in zip(maps, result, strict=True):
            target[...] = self._resample(source[np.newaxis], part, shape, "probabilities")[0]
        return result

    def _resample(
        self, array: NDArray[np.generic], part: Image, shape: tuple[int, ...], kind: Kind
    ) -> NDArray[np.float32]:
        """Resample to the model's scale ("image") or back ("probabilities"), as in training."""
        if self.spec.dimension == 2:
            return resample(array, shape=shape, cancel=self._cancel)
        own = part.spacing or (1.0,) * len(shape)
        scaled = tuple(step / factor for step, factor in zip(own, self.scale.factors, strict=True))
        before, after = (own, scaled) if kind == "image" else (scaled, own)
        return resample_volume(array, before, after, shape=shape, kind=kind, cancel=self._cancel)

    def _estimated_scale(self) -> Scale:
        """Estimate the diameter on the middle part."""
        number = len(self._parts) // 2
        unknown = Scale((1.0,) * self.spec.dimension)
        array = self._prepare(number)
        if array is None:
            return unknown
        found = estimate_diameter(array, self._predictor, cancel=self._cancel)
        if found.diameter is None:
            self._ready = _Prepared(number, array, None if self._mirror else found.maps)
            return unknown
        scale = diameter_scale(self.spec, found.diameter, "estimated")
        if self.spec.object_diameter and found_as_is(found.diameter, self.spec.object_diameter):
            scale = replace(unknown, diameter=found.diameter)
            self._ready = _Prepared(number, array, None if self._mirror else found.maps)
        else:
            self._ready = _Prepared(number, array, None)
        return scale

    def _reporting(self, number: int) -> OnProgress | None:
        """Return a callback that names the slice where there are several."""
        on_progress, total = self._on_progress, len(self._parts)
        if on_progress is None or total == 1:
            return on_progress
        name = f"slice {number + 1} of {total}"
        return lambda step: on_progress(Progress(f"{name}: {step.stage}", step.done, step.total))
