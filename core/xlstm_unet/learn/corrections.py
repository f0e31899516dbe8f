"""What a user changed in a prediction, and what was found right."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import CorrectionsError
from xlstm_unet.images import Image
from xlstm_unet.learn.supervision import Changes, check_arrays, find_changes
from xlstm_unet.spec import ModelSpec

Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Corrections:
    """A prediction, what a user made of it, and the regions that the user marked right.

    Parameters
    ----------
    image
        The image.
    prediction
        Labels as the model gave them, integers from 0, on the image's grid without C.
    labels
        Labels as they are now; where they differ from ``prediction`` they are corrected.
    accepted
        Boolean, the same shape: regions where ``labels`` are right. None: nowhere.
    diameter
        Object diameter in pixels of the image that the user gave for segmenting it; None where it was left
        to the model.
    id
        Number in the store; empty for corrections that are in none.

    Raises
    ------
    CorrectionsError
        If the arrays do not lie on the image's grid, or are no labels.
    """

    image: Image
    prediction: NDArray[np.integer]
    labels: NDArray[np.integer]
    accepted: NDArray[np.bool_] | None = None
    diameter: float | None = None
    id: str = ""

    def __post_init__(self) -> None:
        check_arrays(self.prediction, self.labels, self.accepted)
        if self.labels.shape != self.image.label_shape:
            raise CorrectionsError(
                f"{self.image.name}: corrections of shape {self.labels.shape}, "
                f"expected {self.image.label_shape} {self.image.label_axes}, the image's.",
                "Correct the labels of this very image.",
            )

    @cached_property
    def digest(self) -> str:
        """Digest of image, prediction, labels and accepted regions."""
        digest = hashlib.sha256(image_digest(self.image).encode())
        for array in (self.prediction, self.labels):
            digest.update(np.ascontiguousarray(array, dtype=np.int64).data)
        if self.accepted is not None:
            digest.update(np.packbits(self.accepted).data)
        return digest.hexdigest()

    def changes(self, spec: ModelSpec) -> list[tuple[Index, Changes]]:
        """Return what was changed, plane by plane (2D model) or volume by volume.

        Raises
        ------
        CorrectionsError
            If labels have values that a model of classes does not know.
        """
        check_values(self.labels, spec)
        return [
            (
                index,
                find_changes(
                    self.prediction[index],
                    self.labels[index],
                    None if self.accepted is None else self.accepted[index],
                    spec.task,
                ),
            )
            for index, _ in self.image.parts(spec.dimension)
        ]


def image_digest(image: Image) -> str:
    """SHA-256 of an image's pixels, shape and axes: equal images, equal digest."""
    array = np.ascontiguousarray(image.array)
    head = f"{image.axes} {array.shape} {array.dtype.newbyteorder('<').str}\0"
    digest = hashlib.sha256(head.encode())
    digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def beyond(labels: NDArray[np.integer], spec: ModelSpec) -> list[int]:
    """Values of labels that a model of classes does not know; none for one of single objects."""
    if spec.task == "instances" or int(labels.max(initial=0)) <= len(spec.labels):
        return []
    return [int(value) for value in np.unique(labels) if value > len(spec.labels)]


def check_values(labels: NDArray[np.integer], spec: ModelSpec) -> None:
    """Raise `CorrectionsError` if labels have values that the model does not know."""
    unknown = beyond(labels, spec)
    if unknown:
        raise CorrectionsError(
            f"The labels hold {', '.join(map(str, unknown[:5]))}; {spec.name} knows 1 to {len(spec.labels)}.",
            "A new class needs a new model: xlstm-unet train --from.",
        )


def total_counts(changes: list[Changes]) -> dict[str, int]:
    """Sum the counts of several planes, volumes or images."""
    total: Counter[str] = Counter()
    for one in changes:
        total.update(one.counts)
    return dict(total)
