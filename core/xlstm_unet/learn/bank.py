"""Training images on the device in one flat buffer, so that a batch of warped crops is a few gathers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xlstm_unet.errors import DatasetError, ImageError
from xlstm_unet.images import channels_first, normalise
from xlstm_unet.learn.background import background_window
from xlstm_unet.learn.dataset import Sample
from xlstm_unet.learn.targets import instance_targets, object_diameters
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.spec import ModelSpec

_ANCHORS = 2048


def network_input(sample: Sample, spec: ModelSpec) -> NDArray[np.float32]:
    """Normalise a sample for a model, after checking that image and labels fit it.

    Returns
    -------
    numpy.ndarray
        (C, *spatial), float32.

    Raises
    ------
    DatasetError
        If image or labels do not fit the model.
    """
    try:
        image = normalise(channels_first(sample.image, spec), spec.normalisation)
    except ImageError as error:
        raise DatasetError(f"Sample {sample.id!r}: {error.message}", error.hint) from error
    if spec.task == "classes" and (largest := int(sample.labels.max())) > len(spec.labels):
        raise DatasetError(
            f"Sample {sample.id!r} has label {largest}, the model has labels 1 to {len(spec.labels)}.",
            "Add the label to the configuration or correct the file.",
        )
    return image


@dataclass(frozen=True)
class Crops:
    """A batch on the device: image (B, C, *size) float32, labels (B, *size) int64, distance or None."""

    image: Tensor
    labels: Tensor
    distance: Tensor | None


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image as the network takes it, with what is known of it.

    Parameters
    ----------
    image
        (C, *spatial), float32, normalised.
    labels
        (*spatial), int32; sampled at the nearest pixel.
    distance
        (*spatial), float32, or None for classes; sampled linearly.
    anchors
        Coordinates that crops are placed around, (k, axes), float32, on the CPU.
    diameter
        Median object diameter in pixels; NaN where there is none.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.int32]
    distance: NDArray[np.float32] | None
    anchors: Tensor
    diameter: float


def _prepared(sample: Sample, spec: ModelSpec) -> Prepared:
    image, truth = network_input(sample, spec), sample.labels
    anchors = _anchors(truth, instances=spec.task == "instances")
    if spec.task == "classes":
        return Prepared(image, truth, None, anchors, float("nan"))
    sizes = object_diameters(truth)
    diameter = float(np.median(sizes)) if sizes.size else float("nan")
    return Prepared(image, truth, instance_targets(truth)[1], anchors, diameter)


class Bank:
    """Prepared samples, ready to be sampled at any coordinates.

    Parameters
    ----------
    samples
        Training samples.
    spec
        Model they are prepared for.
    device
        Where the buffer lies.
    cancel
        Asked before each sample.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: ModelSpec,
        device: torch.device,
        *,
        cancel: Cancel | None = None,
    ) -> None:
        def prepared() -> Iterator[Prepared]:
            for sample in samples:
                check_cancelled(cancel)
                yield _prepared(sample, spec)

        self._hold(prepared(), spec.input_channels, device)

    @classmethod
    def of(cls, items: Iterable[Prepared], channels: int, device: torch.device) -> Bank:
        """Make a bank of images that have been prepared already, with ``channels`` channels."""
        bank = cls.__new__(cls)
        bank._hold(items, channels, device)
        return bank

    def _hold(self, items: Iterable[Prepared], channels: int, device: torch.device) -> None:
        self.device = device
        self.channels = channels
        values, labels, shapes, anchors, diameters, gray, windows = [], [], [], [], [], [], []
        for item in items:
            layers = [*item.image] if item.distance is None else [*item.image, item.distance]
            values.append(torch.from_numpy(np.stack(layers, axis=-1).astype(np.float16)).flatten(0, -2))
            labels.append(torch.from_numpy(item.labels).flatten())
            shapes.append(item.labels.shape)
            anchors.append(item.anchors)
            diameters.append(item.diameter)
            gray.append(bool((item.image[1:] == item.image[0]).all()))
            windows.append(background_window(item.labels))
        self.values = torch.cat(values).to(device)
        self.labels = torch.cat(labels).to(device)
        self.partial = bool((self.labels < 0).any())
        """Whether some pixels carry no truth."""
        self.shapes = torch.tensor(shapes)
        """Spatial sizes, (n, axes), on the CPU."""
        self.anchors = anchors
        """Coordinates of labelled pixels of each image, (k, axes), on the CPU."""
        self.diameters = torch.tensor(diameters)
        """Median object diameter of each image in pixels; NaN where there is none."""
        self.gray = torch.tensor(gray)
        """Whether all channels of an image are equal."""
        self.windows = torch.from_numpy(np.stack(windows))
        """Largest square without objects of each image, (n, axes + 1); see `background_window`."""
        pixels = self.shapes.prod(dim=1)
        self._starts = (torch.cumsum(pixels, 0) - pixels).to(device)
        self._shapes = self.shapes.to(device)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.shapes)

    def take(self, images: Tensor, coordinates: Tensor) -> Crops:
        """Sample images at coordinates: linearly for pixels and distance, at the nearest pixel for labels.

        Outside an image its mirror image goes on (an object at its border continues, as its distance does).

        Parameters
        ----------
        images
            Numbers of the images, (B,), int64, on the device.
        coordinates
            Pixel coordinates, (B, *size, axes), float32, on the device.
        """
        batch, *size, axes = coordinates.shape
        shape = self._shapes[images].view(batch, *([1] * len(size)), axes)
        start = self._starts[images].view(batch, *([1] * len(size)))
        inside = _mirrored(coordinates, shape)
        labels = self.labels[_flat(inside.round().long(), shape, start, (0,) * axes)].long()
        low = inside.floor()
        fraction = inside - low
        corner = low.long()
        values = torch.zeros(*labels.shape, self.values.shape[1], device=self.device)
        for offset in product((0, 1), repeat=axes):
            weight = torch.ones_like(fraction[..., :1])
            for axis, step in enumerate(offset):
                part = fraction[..., axis : axis + 1]
                weight = weight * (part if step else 1 - part)
            index = _flat(corner, shape, start, offset)
            values.addcmul_(weight, self.values[index].float())
        values = values.movedim(-1, 1)
        image = values[:, : self.channels]
        distance = values[:, self.channels] * (labels > 0) if values.shape[1] > self.channels else None
        return Crops(image.contiguous(), labels, distance)


def _anchors(labels: NDArray[np.int32], *, instances: bool) -> Tensor:
    """Coordinates of one pixel of every object, or of `_ANCHORS` pixels spread evenly over the classes."""
    flat = labels.ravel()
    where = np.flatnonzero(flat > 0)
    order = where[np.argsort(flat[where], kind="stable")]
    counts = np.unique(flat[where], return_counts=True)[1]
    if not counts.size:
        return torch.zeros(0, labels.ndim)
    ends = np.cumsum(counts)
    if instances:
        picked = order[ends - (counts + 1) // 2]
    else:
        each = np.minimum(counts, max(1, _ANCHORS // counts.size))
        picked = np.concatenate(
            [
                order[np.linspace(end - count, end - 1, number).astype(np.int64)]
                for end, count, number in zip(ends, counts, each, strict=True)
            ]
        )
    return torch.from_numpy(np.stack(np.unravel_index(picked, labels.shape), axis=-1)).float()


def _mirrored(coordinates: Tensor, shape: Tensor) -> Tensor:
    """Fold coordinates into an image by mirroring at its outermost pixels."""
    last = (shape - 1).clamp(min=1).to(coordinates.dtype)
    folded = torch.remainder(coordinates, 2 * last)
    folded = torch.minimum(folded, 2 * last - folded)
    return torch.minimum(folded, (shape - 1).to(coordinates.dtype))


def _flat(coordinates: Tensor, shape: Tensor, start: Tensor, offset: Sequence[int]) -> Tensor:
    """Index into the flat buffer of integer coordinates (..., axes) plus an offset, held inside the image."""
    index = torch.zeros_like(start)
    for axis, step in enumerate(offset):
        along = coordinates[..., axis]
        if step:
            along = torch.minimum(along + step, shape[..., axis] - 1)
        index = index * shape[..., axis] + along
    return index + start


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a small tensor to a device without waiting for the work that is queued there."""
    return tensor.to(device, non_blocking=True)


def crop_batch(batch: int, patch: Sequence[int], crop: Sequence[int]) -> int:
    """Return how many crops of a size hold about as many pixels as ``batch`` patches."""
    return max(1, round(batch * prod(patch) / prod(crop)))
