"""Scoring a network on corrections kept back and on the check part of a replay pack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from xlstm_unet.learn.corrections_prepare import Piece
from xlstm_unet.learn.replay import ReplayPatch
from xlstm_unet.measure import score_instances
from xlstm_unet.nets import Network
from xlstm_unet.progress import Cancel
from xlstm_unet.segment.predictor import Predictor
from xlstm_unet.segment.segmentation import decode_maps
from xlstm_unet.spec import ModelSpec

NAMES = {
    "instances": ("IoU of objects kept back", "F1 at IoU .5 of check patches"),
    "classes": ("Dice of regions kept back", "Dice of check patches"),
}
"""What is scored: on corrections kept back, and on the check part."""
MOST_HELD_OUT = 40
"""Most objects kept back: more would cost time at every look and tell little more."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """An object (or a removed one, or a block of known classes) that is not learnt from.

    Parameters
    ----------
    piece
        Number of the piece.
    box
        Where it lies.
    mask
        Its voxels in the box.
    removed
        Whether nothing should be there.
    """

    piece: int
    box: tuple[slice, ...]
    mask: NDArray[np.bool_]
    removed: bool = False


def hold_out(pieces: Sequence[Piece], spec: ModelSpec, share: float, seed: int) -> list[HeldOut]:
    """Choose a share of what the user settled, evenly at random, the same for the same seed."""
    found = [item for number, piece in enumerate(pieces) for item in _items(number, piece, spec)]
    order = np.random.default_rng(seed).permutation(len(found))
    count = min(MOST_HELD_OUT, round(share * len(found)))
    return [found[index] for index in sorted(order[:count])]


def held_masks(pieces: Sequence[Piece], items: Sequence[HeldOut]) -> list[NDArray[np.bool_]]:
    """Return the voxels kept back in each piece."""
    masks = [np.zeros(piece.labels.shape, bool) for piece in pieces]
    for item in items:
        masks[item.piece][item.box] |= item.mask
    return masks


class Judge:
    """Scores a network; everything it needs is prepared once.

    Parameters
    ----------
    spec
        The model.
    pieces, items
        What was corrected, and what of it is kept back.
    patches
        Check part of the replay pack; may be empty.
    device
        Where the network runs.
    cancel
        Asked within every tile.
    """

    def __init__(
        self,
        spec: ModelSpec,
        pieces: Sequence[Piece],
        items: Sequence[HeldOut],
        patches: Sequence[ReplayPatch],
        device: torch.device,
        cancel: Cancel | None = None,
    ) -> None:
        self.spec = spec
        self.pieces, self.items, self.patches = pieces, items, patches
        self.device = device
        self.cancel = cancel

    def held_out(self, network: Network) -> list[float]:
        """Score of each object kept back: IoU with the object found there (or Dice of its classes)."""
        if not self.items:
            return []
        predict = self._predictor(network)
        whole: dict[int, NDArray[np.int32]] = {}
        scores = []
        for item in self.items:
            image = self.pieces[item.piece].image
            window = self._window(item)
            if item.piece not in whole and self._windows_are_less(item.piece):
                scores.append(
                    self._item_score(item, self._labels(predict, image[(slice(None), *window)]), window)
                )
                continue
            if item.piece not in whole:
                whole[item.piece] = self._labels(predict, image)
            scores.append(self._item_score(item, whole[item.piece][window], window))
        return scores

    def check(self, network: Network, every: int = 1) -> list[float]:
        """Score of each check patch, or of every so many."""
        if not self.patches:
            return []
        predict = self._predictor(network)
        scores = []
        for patch in self.patches[::every]:
            labels = self._labels(predict, patch.intensities(self.spec.input_channels))
            truth = patch.labels.astype(np.int32)
            if self.spec.task == "instances":
                scores.append(score_instances(labels, truth).f1_50)
            else:
                scores.append(_dice(labels, truth))
        return scores

    def _window(self, item: HeldOut) -> tuple[slice, ...]:
        """Where an item lies, with half a patch around it."""
        shape = self.pieces[item.piece].labels.shape
        return tuple(
            slice(max(0, where.start - patch // 2), min(n, where.stop + patch // 2))
            for where, patch, n in zip(item.box, self.spec.patch_size, shape, strict=True)
        )

    def _windows_are_less(self, piece: int) -> bool:
        """Whether the windows of a piece's items are less to compute than the piece."""
        windows = [self._window(item) for item in self.items if item.piece == piece]
        area = sum(prod(where.stop - where.start for where in window) for window in windows)
        return 2 * area < self.pieces[piece].labels.size and not self.spec.network.channel_tokens

    def _predictor(self, network: Network) -> Predictor:
        return Predictor(self.spec, network, device=str(self.device))

    def _labels(self, predict: Predictor, image: NDArray[np.float32]) -> NDArray[np.int32]:
        maps = predict(image, cancel=self.cancel)
        return decode_maps(maps, self.spec, self.spec.decoding, cancel=self.cancel)

    def _item_score(self, item: HeldOut, labels: NDArray[np.int32], window: tuple[slice, ...]) -> float:
        """Score what was found in a window, ``labels``."""
        box = tuple(
            slice(where.start - outer.start, where.stop - outer.start)
            for where, outer in zip(item.box, window, strict=True)
        )
        found = labels[box][item.mask]
        if self.spec.task == "classes":
            return _dice(found, self.pieces[item.piece].labels[item.box][item.mask])
        if item.removed:
            return float(np.mean(found == 0))
        values, counts = np.unique(found[found > 0], return_counts=True)
        if not values.size:
            return 0.0
        best = values[counts.argmax()]
        union = np.count_nonzero(labels == best) + np.count_nonzero(item.mask) - counts.max()
        return float(counts.max() / union)


def _items(number: int, piece: Piece, spec: ModelSpec) -> list[HeldOut]:
    if spec.task == "classes":
        known = piece.supervision(spec).known
        sides = [max(1, n // 2) for n in spec.patch_size]
        grid = [range(0, n, side) for n, side in zip(known.shape, sides, strict=True)]
        boxes = [tuple(slice(s, s + side) for s, side in zip(c, sides, strict=True)) for c in product(*grid)]
        return [HeldOut(number, box, known[box]) for box in boxes if known[box].any()]
    supervision = piece.supervision(spec)
    whole = supervision.labels * supervision.distance_known
    return [
        *_objects(number, whole, removed=False),
        *_objects(number, ndimage.label(piece.removed)[0], removed=True),
    ]


def _objects(number: int, labels: NDArray[np.integer], *, removed: bool) -> list[HeldOut]:
    return [
        HeldOut(number, box, labels[box] == value, removed)
        for value, box in enumerate(ndimage.find_objects(labels), start=1)
        if box is not None
    ]


def _dice(found: NDArray[np.integer], truth: NDArray[np.integer]) -> float:
    """Dice averaged over the classes that either has; 1 where neither has any."""
    values = np.union1d(np.unique(found), np.unique(truth))
    scores = [
        2 * np.count_nonzero((found == v) & (truth == v)) / (np.sum(found == v) + np.sum(truth == v))
        for v in values
        if v
    ]
    return float(np.mean(scores)) if scores else 1.0
