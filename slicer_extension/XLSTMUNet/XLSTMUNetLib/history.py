"""What was predicted, for each state of a segmentation that the editor's undo can bring back."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np

from XLSTMUNetLib.corrections import Array, accepted, keep_prediction, predicted_by, prediction, shown_regions

MAX_STATES = 6


@dataclass(frozen=True)
class _Known:
    """What belongs to one state of a segmentation."""

    labels: Array
    accepted: Array | None
    model: str
    regions: list[Any]


class Predictions:
    """Remembers results, so that undoing one is no correction.

    The Segment Editor's undo brings back the segments, but knows nothing of the prediction that they are
    compared with. Once a state of the segments returns, so does its prediction.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, bytes], _Known] = OrderedDict()

    def remember(self, segmentation: Any, volume: Any, labels: Array) -> None:
        """Remember the prediction that belongs to the segments as they are; ``labels`` is what they say."""
        model = predicted_by(segmentation)
        if model:
            key = (segmentation.GetID(), _digest(labels))
            self._known[key] = _Known(
                prediction(segmentation, volume),
                accepted(segmentation, volume),
                model,
                shown_regions(segmentation),
            )
            self._known.move_to_end(key)
            while len(self._known) > MAX_STATES:
                self._known.popitem(last=False)

    def restore(self, segmentation: Any, volume: Any, labels: Array) -> bool:
        """Bring back the prediction of a state that returned; whether there was another one."""
        known = self._known.get((segmentation.GetID(), _digest(labels)))
        if known is None or np.array_equal(known.labels, prediction(segmentation, volume)):
            return False
        keep_prediction(
            segmentation,
            volume,
            known.labels,
            known.model,
            accepted=known.accepted,
            regions=known.regions,
        )
        return True

    def forget(self) -> None:
        """Forget everything: the scene was closed."""
        self._known.clear()


def _digest(labels: Array) -> bytes:
    return hashlib.blake2b(labels.tobytes(), digest_size=16).digest()
