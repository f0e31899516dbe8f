"""Losses over supervised pixels: cross-entropy, soft Dice, and smooth L1 on the distance map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, smooth_l1_loss

from xlstm_unet.learn.config import Losses
from xlstm_unet.learn.targets import BOUNDARY
from xlstm_unet.spec import ModelSpec

_BETA = 0.05
_SMOOTH = 1.0


@dataclass(frozen=True)
class Targets:
    """What a batch of outputs should be.

    Parameters
    ----------
    classes
        (B, *spatial), int64: class of each pixel.
    distance
        (B, *spatial), float32, normalised distance; None for classes.
    supervised
        (B, *spatial), bool: pixels whose class is known; None means all. Others carry no loss. Or float:
        weights.
    distance_supervised
        The same for the distance; ``supervised`` where None.
    """

    classes: Tensor
    distance: Tensor | None = None
    supervised: Tensor | None = None
    distance_supervised: Tensor | None = None

    def every(self, step: Sequence[int]) -> Targets:
        """Targets at a coarser scale: every ``step``-th pixel."""
        pick: tuple[slice, ...] = (slice(None), *(slice(None, None, n) for n in step))
        parts = (self.classes, self.distance, self.supervised, self.distance_supervised)
        return Targets(*(None if part is None else part[pick] for part in parts))  # type: ignore[arg-type]


def instance_classes(labels: Tensor) -> Tensor:
    """Background 0, interior 1 and inner boundary 2 of a batch of label maps (B, *spatial), as int64.

    The same as `targets.instance_targets` gives for each, computed on the labels' device.
    """
    edge = torch.zeros_like(labels, dtype=torch.bool)
    for axis in range(1, labels.ndim):
        length = labels.shape[axis]
        differs = labels.narrow(axis, 0, length - 1) != labels.narrow(axis, 1, length - 1)
        edge.narrow(axis, 0, length - 1).logical_or_(differs)
        edge.narrow(axis, 1, length - 1).logical_or_(differs)
    inside = labels > 0
    return inside.long() + (edge & inside).long() * (BOUNDARY - 1)


def region_table(spec: ModelSpec) -> Tensor | None:
    """Return which region holds which label, bool (regions, 1 + labels); None for single labels."""
    if not spec.regions:
        return None
    table = torch.zeros(len(spec.regions), 1 + len(spec.labels), dtype=torch.bool)
    for row, region in zip(table, spec.regions, strict=True):
        row[list(region.values)] = True
    return table


def segmentation_loss(
    outputs: Sequence[Tensor], targets: Targets, weights: Losses, regions: Tensor | None = None
) -> Tensor:
    """Return the loss of a batch, a scalar.

    Parameters
    ----------
    outputs
        Logits of each scale, (B, out, *spatial), finest first; only the first ``len(weights.scales)`` count.
        With a distance target the last channel is the distance.
    targets
        At the finest scale.
    weights
        Weights of the parts.
    regions
        Of `region_table`, on the device of the outputs, where these are regions.
    """
    finest = outputs[0].shape[2:]
    total = outputs[0].new_zeros((), dtype=torch.float32)
    for output, weight in zip(outputs, weights.scales, strict=False):
        step = [-(-fine // coarse) for fine, coarse in zip(finest, output.shape[2:], strict=True)]
        scaled = targets if output is outputs[0] else targets.every(step)
        output = _cropped(output, scaled.classes.shape[1:])
        total = total + weight * _scale_loss(output.float(), scaled, weights, regions)
    return total / sum(weights.scales)


def _scale_loss(output: Tensor, targets: Targets, weights: Losses, regions: Tensor | None) -> Tensor:
    logits = output if targets.distance is None else output[:, :-1]
    known = _mask(targets.supervised, targets.classes)
    if regions is not None:
        return _region_loss(logits, targets.classes, known, weights, regions)
    entropy = cross_entropy(logits, targets.classes, reduction="none")
    loss = (entropy * known).sum() / known.sum().clamp(min=1)
    loss = loss + weights.dice * soft_dice_loss(logits, targets.classes, known)
    if targets.distance is None:
        return loss
    known = known if targets.distance_supervised is None else targets.distance_supervised.float()
    inside = (targets.classes > 0).float() * known
    outside = known - inside
    error = smooth_l1_loss(output[:, -1], targets.distance, reduction="none", beta=_BETA)
    near = (error * inside).sum() / inside.sum().clamp(min=1)
    far = (error * outside).sum() / outside.sum().clamp(min=1)
    return loss + weights.distance * (near + weights.distance_outside * far)


def soft_dice_loss(logits: Tensor, classes: Tensor, known: Tensor) -> Tensor:
    """1 - Dice of each foreground class over all known pixels of the batch, averaged over the classes.

    Parameters
    ----------
    logits
        (B, classes, *spatial).
    classes
        (B, *spatial), int64.
    known
        (B, *spatial), float: 1 where the class is known, else 0.
    """
    truth = torch.zeros_like(logits).scatter_(1, classes[:, None], 1.0)
    return 1 - _dice(logits.softmax(dim=1), truth, known)[1:].mean()


def _region_loss(logits: Tensor, classes: Tensor, known: Tensor, weights: Losses, regions: Tensor) -> Tensor:
    """Cross-entropy and Dice of regions, each an output of its own: one voxel may be in several."""
    truth = regions.T[classes].movedim(-1, 1).to(logits.dtype)
    entropy = binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=1)
    loss = (entropy * known).sum() / known.sum().clamp(min=1)
    return loss + weights.dice * (1 - _dice(logits.sigmoid(), truth, known).mean())


def _dice(share: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Soft Dice of each channel over the known pixels of the batch."""
    axes = [axis for axis in range(share.ndim) if axis != 1]
    share, truth = share * known[:, None], truth * known[:, None]
    overlap, size = (share * truth).sum(dim=axes), (share + truth).sum(dim=axes)
    return (2 * overlap + _SMOOTH) / (size + _SMOOTH)


def _cropped(output: Tensor, size: Sequence[int]) -> Tensor:
    for axis, length in enumerate(size, start=2):
        output = output.narrow(axis, 0, length)
    return output


def _mask(supervised: Tensor | None, like: Tensor) -> Tensor:
    if supervised is None:
        return torch.ones_like(like, dtype=torch.float32)
    return supervised.float()
