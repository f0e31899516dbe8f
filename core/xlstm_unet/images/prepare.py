"""From an image to what a network takes: channels first and intensities normalised."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ImageError
from xlstm_unet.images.image import Array, Image
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
        (C, *spatial), dtype of the image, ``spec.input_channels`` channels.

    Raises
    ------
    ImageError
        If dimension or channels do not fit the model.
    """
    if image.frames > 1:
        raise ImageError(f"{image.name}: {image.frames} time points, expected one at a time.")
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
    array = image.array if "C" in image.axes else image.array[np.newaxis]
    if "T" in image.axes:
        array = array.reshape((image.channels, *image.spatial_shape))
    return _matched_channels(array, image, spec)


def _matched_channels(array: Array, image: Image, spec: ModelSpec) -> Array:
    wanted = spec.input_channels
    if len(array) == 4 and wanted in (1, 3) and array.dtype in (np.uint8, np.uint16):
        array = array[:3]
    if len(array) == wanted:
        return array
    if len(array) == 1 and spec.accepts_gray:
        return np.repeat(array, wanted, axis=0)
    if wanted == 1 and len(array) == 3 and (array[1:] == array[0]).all():
        return array[:1]
    names = f" ({', '.join(spec.channel_names)})" if spec.channel_names else ""
    gray = " or 1" if spec.accepts_gray else ""
    raise ImageError(
        f"{image.name}: {image.channels} channels (axes {image.axes}), "
        f"model {spec.name} takes {wanted}{names}{gray}.",
        "Select or combine channels, or pass axes if they were read wrongly.",
    )


def normalise(array: Array, schemes: Sequence[Normalisation]) -> NDArray[np.float32]:
    """Scale intensities for a network.

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
    if len(schemes) not in (1, len(array)):
        raise ImageError(
            f"{len(array)} channels with {len(schemes)} normalisations, expected 1 or {len(array)}."
        )
    out: NDArray[np.float32] = np.empty(array.shape, dtype=np.float32)
    if len(schemes) == 1:
        _normalise_into(out, array, schemes[0])
    else:
        for channel, scheme in enumerate(schemes):
            _normalise_into(out[channel : channel + 1], array[channel : channel + 1], scheme)
    return out


def _normalise_into(out: NDArray[np.float32], array: Array, scheme: Normalisation) -> None:
    bounds: tuple[float, float] | None = None
    clip: tuple[float, float] | None = None
    shift, scale = 0.0, 1.0
    if scheme.scheme == "percentile":
        low, high = _percentiles(array, scheme.low, scheme.high)
        shift, scale = low, _inverse(high - low)
        bounds = PERCENTILE_RANGE
    elif scheme.scheme == "zscore":
        shift = float(array.mean(dtype=np.float64))
        constant = array.max() == array.min()
        scale = 0.0 if constant else _inverse(float(array.std(dtype=np.float64)))
    elif scheme.scheme == "rescale01":
        shift = float(array.min())
        scale = _inverse(float(array.max()) - shift)
    elif scheme.scheme == "ct":
        clip = (scheme.low, scheme.high)
        shift, scale = scheme.mean, 1.0 / scheme.std
    elif scheme.scheme == "rgb01":
        scale = 1.0 / _white(array)
    _scale_into(out, array, shift, scale, clip, bounds)


def _scale_into(
    out: NDArray[np.float32],
    array: Array,
    shift: float,
    scale: float,
    clip: tuple[float, float] | None,
    bounds: tuple[float, float] | None,
) -> None:
    """Write ``(clip(array) - shift) * scale`` in pieces: double precision without a copy of that size."""
    rows = max(1, _CHUNK // max(1, array[0, 0].size))
    for channel in range(len(array)):
        for start in range(0, array.shape[1], rows):
            piece = array[channel, start : start + rows].astype(np.float64)
            if clip is not None:
                np.clip(piece, *clip, out=piece)
            piece -= shift
            piece *= scale
            if bounds is not None:
                np.clip(piece, *bounds, out=piece)
            out[channel, start : start + rows] = piece


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
