"""From corrections to what a network is shown: pieces at the model's scale, as the `Segmenter` sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from xlstm_unet.errors import CorrectionsError, ImageError
from xlstm_unet.images import Image, channels_first, fit_normalisation, oriented, resample, resample_volume
from xlstm_unet.learn.corrections import Corrections, Index
from xlstm_unet.learn.supervision import Changes, Supervision, supervise
from xlstm_unet.learn.targets import object_diameters
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.segment.diameter import found_as_is
from xlstm_unet.segment.scale import Scale, diameter_scale, given_scale
from xlstm_unet.spec import ModelSpec

_MARGIN = 0.75
"""Context around what is known, in patches of the model."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One plane or volume with something known in it, cut to that and its surroundings.

    Parameters
    ----------
    image
        (C, *spatial) float32, normalised, at the model's scale.
    labels, changed, removed, accepted
        At the model's scale, (*spatial); see `Changes`.
    source
        Place in the list of corrections.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    changed: NDArray[np.bool_]
    removed: NDArray[np.bool_]
    accepted: NDArray[np.bool_]
    source: int

    def supervision(self, spec: ModelSpec, without: NDArray[np.bool_] | None = None) -> Supervision:
        """Say what is known, without the objects under a mask."""
        changed, removed, accepted = self.changed, self.removed, self.accepted
        if without is not None:
            changed, removed, accepted = changed & ~without, removed & ~without, accepted & ~without
        result = supervise(self.labels, changed, removed, accepted, spec.task, sampling=_sampling(spec))
        if without is not None:
            result.known[without] = False
            result.distance_known[without] = False
        return result


def pieces_of(
    corrections: Sequence[Corrections], spec: ModelSpec, *, cancel: Cancel | None = None
) -> tuple[list[Piece], list[Changes]]:
    """Prepare corrections for a model.

    Returns
    -------
    pieces
        Of every plane or volume with anything corrected or accepted.
    changes
        What was changed in each of them.

    Raises
    ------
    CorrectionsError
        If an image does not fit the model, or its labels do not.
    """
    pieces, changes = [], []
    for source, one in enumerate(corrections):
        found = [(index, change) for index, change in one.changes(spec) if change.states.any()]
        if not found:
            continue
        image, turn = oriented(one.image, spec.orientation if spec.dimension == 3 else None)
        parts = dict(image.parts(spec.dimension))
        scale = _scale(one, found, parts[found[0][0]], spec)
        for index, change in found:
            check_cancelled(cancel)
            labels = np.asarray(one.labels[index], np.int32)
            accepted = np.zeros(labels.shape, bool) if one.accepted is None else one.accepted[index]
            masks = (change.changed, change.removed, accepted)
            labels, *turned = (np.ascontiguousarray(turn.array(array)) for array in (labels, *masks))
            pieces.append(_piece(image, index, parts[index], labels, turned, scale, spec, source, cancel))
            changes.append(change)
    return pieces, changes


def _scale(
    corrections: Corrections, found: Sequence[tuple[Index, Changes]], part: Image, spec: ModelSpec
) -> Scale:
    """Scale that the `Segmenter` would take if it found the objects that the user settled."""
    scale = given_scale(part, spec, corrections.diameter)
    if scale is not None:
        return scale
    assert spec.object_diameter is not None
    diameters = []
    for index, change in found:
        labels = corrections.labels[index]
        settled = np.unique(labels[change.states > 0])
        diameters.append(object_diameters(np.where(np.isin(labels, settled), labels, 0)))
    sizes = np.concatenate(diameters)
    if not sizes.size or found_as_is(float(np.median(sizes)), spec.object_diameter):
        return Scale((1.0,) * spec.dimension)
    return diameter_scale(spec, float(np.median(sizes)), "corrected")


def _piece(
    image: Image,
    index: tuple[int, ...],
    part: Image,
    labels: NDArray[np.int32],
    masks: Sequence[NDArray[np.bool_]],
    scale: Scale,
    spec: ModelSpec,
    source: int,
    cancel: Cancel | None,
) -> Piece:
    try:
        pixels = _network_input(image, index, part, spec)
        shape = scale.shape(part, pixels.shape[1:], spec)
    except ImageError as error:
        raise CorrectionsError(error.message, error.hint) from error
    if shape != labels.shape:
        pixels = _resampled(pixels, part, shape, scale, spec, cancel)
        labels = resample(labels, order=0, shape=shape)
        masks = [resample(mask, order=0, shape=shape) for mask in masks]
    changed, removed, accepted = masks
    box = _box(changed | removed | accepted, spec)
    pixels = np.broadcast_to(pixels, (spec.input_channels, *shape))[(slice(None), *box)]
    return Piece(
        image=np.ascontiguousarray(pixels),
        labels=np.ascontiguousarray(labels[box]),
        changed=np.ascontiguousarray(changed[box]),
        removed=np.ascontiguousarray(removed[box]),
        accepted=np.ascontiguousarray(accepted[box]),
        source=source,
    )


def _resampled(
    pixels: NDArray[np.float32],
    part: Image,
    shape: tuple[int, ...],
    scale: Scale,
    spec: ModelSpec,
    cancel: Cancel | None,
) -> NDArray[np.float32]:
    if spec.dimension == 2:
        return np.asarray(resample(pixels, shape=shape, cancel=cancel))
    own = part.spacing or (1.0,) * len(shape)
    wanted = tuple(step / factor for step, factor in zip(own, scale.factors, strict=True))
    return resample_volume(pixels, own, wanted, shape=shape, kind="image", cancel=cancel)


def _network_input(image: Image, index: tuple[int, ...], part: Image, spec: ModelSpec) -> NDArray[np.float32]:
    """Normalise a plane or volume as the `Segmenter` does: a stack by its whole frame."""
    frame = index[0] if "T" in image.axes else 0
    array, axes = image.array, image.axes
    if "T" in axes:
        array, axes = array[frame], axes[1:]
    if "Z" in axes and spec.dimension == 2:
        array = array.reshape(*array.shape[:-3], -1, array.shape[-1])
        axes = axes.replace("Z", "")
    whole = replace(image, array=array, axes=axes, spacing=None, affine=None, header=None)
    pixels = channels_first(whole, spec)
    normaliser = fit_normalisation(
        pixels[:1] if pixels.strides[0] == 0 and len(spec.normalisation) == 1 else pixels, spec.normalisation
    )
    own = channels_first(part, spec)
    gray = own.strides[0] == 0 and len(spec.normalisation) == 1
    return normaliser(own[:1] if gray else own)


def _box(known: NDArray[np.bool_], spec: ModelSpec) -> tuple[slice, ...]:
    """Bounding box of what is known, with context."""
    if not known.any():  # it vanished at the model's scale
        return tuple(slice(0, min(n, p)) for n, p in zip(known.shape, spec.patch_size, strict=True))
    found = ndimage.find_objects(known.astype(np.uint8))[0]
    return tuple(
        slice(max(0, where.start - int(_MARGIN * patch)), where.stop + int(_MARGIN * patch))
        for where, patch in zip(found, spec.patch_size, strict=True)
    )


def _sampling(spec: ModelSpec) -> tuple[float, ...] | None:
    if spec.spacing is None:
        return None
    return tuple(size / min(spec.spacing) for size in spec.spacing)
