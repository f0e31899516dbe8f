"""From an image to what a network takes: channels first and intensities normalised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Array, Image
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.spec import ModelSpec, Normalisation

PERCENTILE_RANGE = (-1.0, 4.0)
"""Where percentile-normalised values are clipped, so that hot pixels do not drown the rest."""
_SAMPLE = 2**20
_CHUNK = 2**20


def channels_first(image: Image, spec: ModelSpec) -> Array:
    """Return the pixels as (C, Y, X) or (C, Z, Y, X) with the channels that a model takes.

    One channel is repeated where the model accepts gray images; a fourth channel of 8 or 16-bit colour
    (alpha) is dropped; colour with three equal channels counts as gray for a model of one channel.

    Parameters
    ----------
    image
        One part of an image (`Image.parts`): no time axis, and Z only for a 3D model.
    spec
        The model.

    Returns
    -------
    array
        (C, *spatial), dtype of the image, ``spec.input_channels`` channels; a view where it can be one (a
        repeated gray channel has stride 0).

    Raises
    ------
    ImageError
        If dimension or channels do not fit the model.
    """
    if image.frames > 1:
        raise ImageError(f"{image.name}: {image.frames} time points, expected one at a time.")
    check_dimension(image, spec)
    array = image.array if "C" in image.axes else image.array[np.newaxis]
    if "T" in image.axes:
        array = array.reshape((image.channels, *image.spatial_shape))
    return _matched_channels(array, image, spec)


def check_dimension(image: Image, spec: ModelSpec) -> None:
    """Refuse a plane for a 3D model and a volume for a 2D model.

    Raises
    ------
    ImageError
        With what the image has and what the model takes.
    """
    found = len(image.spatial_axes)
    if found != spec.dimension:
        hint = (
            "Choose a 2D model, or pass axes if the image is a stack."
            if found == 2
            else "Choose a 3D model, or run it slice by slice."
        )
        raise ImageError(
            f"{image.name}: image is {found}D ({image.axes}), model {spec.name} takes {spec.dimension}D.",
            hint,
        )


def _matched_channels(array: Array, image: Image, spec: ModelSpec) -> Array:
    wanted = spec.input_channels
    if len(array) == 4 and wanted in (1, 3) and array.dtype in (np.uint8, np.uint16):
        array = array[:3]
    if len(array) == wanted:
        return array
    if len(array) == 1 and spec.accepts_gray:
        return np.broadcast_to(array, (wanted, *array.shape[1:]))
    if wanted == 1 and len(array) == 3 and (array[1:] == array[0]).all():
        return array[:1]
    names = f" ({', '.join(spec.channel_names)})" if spec.channel_names else ""
    gray = " or 1" if spec.accepts_gray else ""
    raise ImageError(
        f"{image.name}: {image.channels} channels (axes {image.axes}), "
        f"model {spec.name} takes {wanted}{names}{gray}.",
        "Select or combine channels, or pass axes if they were read wrongly.",
    )


@dataclass(frozen=True)
class _Scaling:
    """``(clip(x) - shift) * scale``, then clipped to ``bounds``."""

    shift: float = 0.0
    scale: float = 1.0
    clip: tuple[float, float] | None = None
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Normaliser:
    """Intensity scaling fitted to one array, for it and for parts of it (see `fit_normalisation`)."""

    scalings: tuple[_Scaling, ...]

    def __call__(self, array: Array, *, cancel: Cancel | None = None) -> NDArray[np.float32]:
        """Return a new float32 array of the same shape (C, *spatial), in C order.

        Parameters
        ----------
        array
            (C, *spatial) with as many channels as the array that this was fitted to.
        cancel
            Asked for every million values.
        """
        out: NDArray[np.float32] = np.empty(array.shape, dtype=np.float32)
        for channel, values in enumerate(array):
            _scale_into(out[channel], values, self.scalings[channel % len(self.scalings)], cancel)
        return out


def normalise(array: Array, schemes: Sequence[Normalisation]) -> NDArray[np.float32]:
    """Scale the intensities of an array for a network: `fit_normalisation`, applied to the same array.

    Parameters
    ----------
    array
        (C, Y, X) or (C, Z, Y, X), finite numbers.
    schemes
        One for all channels together, or one a channel.

    Returns
    -------
    array
        New array, float32, same shape, C order.

    Raises
    ------
    ImageError
        If the number of schemes is neither 1 nor that of the channels.
    """
    return fit_normalisation(array, schemes)(array)


def fit_normalisation(array: Array, schemes: Sequence[Normalisation]) -> Normaliser:
    """Find how to scale the intensities of an array for a network.

    - ``percentile``: the lower percentile becomes 0 and the upper 1, clipped to `PERCENTILE_RANGE`;
      percentiles of large images come from a regular subset of about a million pixels, so they are the same
      every time. Where both percentiles are equal, minimum and maximum stand in.
    - ``zscore``: mean 0, standard deviation 1. ``rescale01``: minimum 0, maximum 1.
    - ``ct``: clipped to [low, high], minus mean, divided by std, as given by the model.
    - ``rgb01``: 8-bit by 255, 16-bit by 65535, floats above 1 by 255.
    - ``none``: only converted.

    A constant image gives zeros in the schemes that look at the image (the first three).

    Parameters
    ----------
    array
        (C, *spatial), finite numbers.
    schemes
        One for all channels together, or one a channel.

    Raises
    ------
    ImageError
        If the number of schemes is neither 1 nor that of the channels.
    """
    if len(schemes) not in (1, len(array)):
        raise ImageError(
            f"{len(array)} channels with {len(schemes)} normalisations, expected 1 or {len(array)}."
        )
    if len(schemes) == 1:
        return Normaliser((_fit(array, schemes[0]),))
    return Normaliser(tuple(_fit(array[i : i + 1], scheme) for i, scheme in enumerate(schemes)))


def _fit(array: Array, scheme: Normalisation) -> _Scaling:
    match scheme.scheme:
        case "percentile":
            low, high = _percentiles(array, scheme.low, scheme.high)
            return _Scaling(low, _inverse(high - low), bounds=PERCENTILE_RANGE)
        case "zscore":
            constant = array.max() == array.min()
            scale = 0.0 if constant else _inverse(float(array.std(dtype=np.float64)))
            return _Scaling(float(array.mean(dtype=np.float64)), scale)
        case "rescale01":
            low = float(array.min())
            return _Scaling(low, _inverse(float(array.max()) - low))
        case "ct":
            return _Scaling(scheme.mean, 1.0 / scheme.std, clip=(scheme.low, scheme.high))
        case "rgb01":
            return _Scaling(scale=1.0 / _white(array))
        case "none":
            return _Scaling()


def _scale_into(out: NDArray[np.float32], array: Array, scaling: _Scaling, cancel: Cancel | None) -> None:
    """Write the scaled array in pieces: double precision without a copy of that size."""
    rows = max(1, _CHUNK // max(1, array[0].size))
    for start in range(0, len(array), rows):
        check_cancelled(cancel)
        piece = array[start : start + rows].astype(np.float64)
        if scaling.clip is not None:
            np.clip(piece, *scaling.clip, out=piece)
        piece -= scaling.shift
        piece *= scaling.scale
        if scaling.bounds is not None:
            np.clip(piece, *scaling.bounds, out=piece)
        out[start : start + rows] = piece


def _percentiles(array: Array, low: float, high: float) -> tuple[float, float]:
    step = 1
    while array.size / step ** (array.ndim - 1) > _SAMPLE:
        step += 1
    sample = array[(slice(None), *(slice(None, None, step) for _ in array.shape[1:]))]
    bottom, top = (float(value) for value in np.percentile(sample, (low, high)))
    if top > bottom:
        return bottom, top
    return float(array.min()), float(array.max())


def _inverse(extent: float) -> float:
    return 1.0 / extent if extent > 0 else 0.0


def _white(array: Array) -> float:
    if array.dtype.kind in "iu" and array.dtype.itemsize <= 2:
        return float(np.iinfo(array.dtype).max)
    return 255.0 if array.max() > 1 else 1.0
