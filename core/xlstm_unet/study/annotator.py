"""A simulated annotator: sees a prediction, finds its worst errors and fixes them as a person would.

Nothing a person could not see or do goes in: outlines are drawn with an unsteady hand, some errors are
overlooked, and, where asked for, some corrections are wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from xlstm_unet.learn.targets import object_diameters
from xlstm_unet.study.annotator_errors import Error, find_errors

Labels = NDArray[np.int32]

_SMALLEST = 5
"""Pixels that a drawn object has at least."""
_HURRY = 0.7
"""Spread (of a normal logarithm) with which a person judges how bad an error is."""


class Habits(BaseModel):
    """How a simulated person works."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    jitter: Annotated[float, Field(ge=0, le=0.5)] = 0.04
    """How far a drawn outline strays: standard deviation, in diameters of the object."""
    omissions: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the errors that are overlooked."""
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the corrections that make the labels worse."""
    style: Literal["worst", "window"] = "worst"
    """``worst``: the worst errors anywhere; ``window``: all errors of a window, which is then accepted."""
    sets_diameter: bool = False
    """Set the object diameter of every image, as where the model finds nothing to estimate it from."""
    diameter_error: Annotated[float, Field(ge=0, le=1)] = 0.1
    """How far such a diameter is off: spread of a normal logarithm."""


@dataclass(frozen=True, eq=False)
class Corrected:
    """What a person leaves behind.

    Parameters
    ----------
    labels
        int32, the prediction with corrections drawn into it.
    accepted
        Boolean, where the person declared all to be right; None where nowhere.
    corrections
        Objects drawn or deleted (instances), or slices painted (classes).
    wrong
        How many of them are wrong.
    """

    labels: Labels
    accepted: NDArray[np.bool_] | None
    corrections: int
    wrong: int


def seen_diameter(truth: Labels, habits: Habits, generator: np.random.Generator) -> float | None:
    """Return what a person sets as the object diameter, in pixels; None where there are no objects.

    Parameters
    ----------
    truth
        int32 labels, 0 is background; their median diameter is what is seen.
    habits
        How the person works.
    generator
        What decides how far the eye is off.
    """
    diameters = object_diameters(truth)
    if not diameters.size:
        return None
    return float(np.median(diameters) * np.exp(generator.normal(0, habits.diameter_error)))


def correct_instances(
    prediction: Labels, truth: Labels, count: int, habits: Habits, generator: np.random.Generator
) -> Corrected:
    """Fix the errors of a map of objects, the worst first, until ``count`` objects are fixed.

    A merged or torn object is fixed as one: what was predicted goes, and every true object under it is drawn.

    Parameters
    ----------
    prediction, truth
        int32 labels of the same shape, 2D or 3D; 0 is background.
    count
        Objects to draw or delete, at most; a merged pair counts as two.
    habits
        How the person works.
    generator
        What decides where the hand slips.
    """
    hand = _Hand(prediction, truth, habits, generator)
    errors = find_errors(prediction, truth)
    accepted = None
    if habits.style == "window":
        errors, accepted = hand.window(errors, count)
    else:
        errors = hand.seen(errors)
    for error in errors:
        left = count - hand.done
        if left <= 0:
            break
        if generator.random() < habits.wrong:
            hand.spoil()
        elif error.cost <= left:
            hand.fix(error)
    return Corrected(hand.labels, accepted, hand.done, hand.wrong)


def correct_slices(
    prediction: Labels, truth: Labels, count: int, habits: Habits, generator: np.random.Generator
) -> Corrected:
    """Repaint the slices of a map of classes that hold most wrong voxels, and accept them.

    Parameters
    ----------
    prediction, truth
        int32 classes of the same 3D shape; slices lie along the first axis.
    count
        Slices to paint, at most; two neighbouring ones are not painted both.
    habits
        How the person works; one that overlooks something does not accept the slice.
    generator
        What decides where the hand slips.
    """
    labels = prediction.copy()
    accepted = np.zeros(labels.shape, dtype=bool)
    badness = (prediction != truth).sum(axis=(1, 2)) * generator.lognormal(0, _HURRY, len(truth))
    painted: list[int] = []
    wrong = 0
    for index in np.argsort(-badness, kind="stable").tolist():
        if len(painted) == count or badness[index] <= 0:
            break
        if any(abs(index - other) < 2 for other in painted):
            continue
        painted.append(index)
        slip = generator.random() < habits.wrong
        wrong += slip
        labels[index] = _painted_slice(truth[index], habits.jitter, slip, generator)
        accepted[index] = slip or generator.random() >= habits.omissions
    return Corrected(labels, accepted, len(painted), wrong)


def drawn(mask: NDArray[np.bool_], jitter: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """Return a mask as an unsteady hand draws it: its outline moves in and out, smoothly along its length.

    Parameters
    ----------
    mask
        One object, 2D or 3D, with room around it.
    jitter
        Standard deviation of the movement, in diameters of the object.
    generator
        Source of the movement.
    """
    from scipy import ndimage

    size = int(np.count_nonzero(mask))
    if not size or not jitter:
        return mask.copy()
    diameter = 2 * np.sqrt(size / np.pi) if mask.ndim == 2 else np.cbrt(size * 6 / np.pi)
    noise = ndimage.gaussian_filter(generator.normal(size=mask.shape), max(1.0, diameter / 6), mode="wrap")
    noise *= jitter * diameter / max(float(noise.std()), 1e-9)
    inside = ndimage.distance_transform_edt(mask) if not mask.all() else np.full(mask.shape, diameter)
    outside = ndimage.distance_transform_edt(~mask)
    moved: NDArray[np.bool_] = np.where(mask, inside - 0.5, 0.5 - outside) + noise > 0
    return moved if np.count_nonzero(moved) >= min(_SMALLEST, size) else mask.copy()


class _Hand:
    """Labels being corrected."""

    def __init__(
        self, prediction: Labels, truth: Labels, habits: Habits, generator: np.random.Generator
    ) -> None:
        from scipy import ndimage

        self.labels, self.truth = prediction.copy(), truth
        self.habits, self.generator = habits, generator
        self.done = self.wrong = 0
        self._boxes = ndimage.find_objects(truth)
        self._next = int(prediction.max(initial=0)) + 1

    def seen(self, errors: Sequence[Error]) -> list[Error]:
        """Errors that are not overlooked, in the order in which they strike the eye."""
        kept = [error for error in errors if self.generator.random() >= self.habits.omissions]
        struck = [error.severity * self.generator.lognormal(0, _HURRY) for error in kept]
        return [kept[i] for i in np.argsort(struck)[::-1]]

    def window(self, errors: Sequence[Error], count: int) -> tuple[list[Error], NDArray[np.bool_]]:
        """Errors around one place, as many as fit ``count``, and the window that holds no others."""
        accepted = np.zeros(self.labels.shape, dtype=bool)
        if not errors:
            return [], accepted
        centres = np.array([error.centre for error in errors])
        middle = centres[self.generator.integers(len(centres))]
        reach = np.abs(centres - middle).max(axis=1)
        order = np.argsort(reach, kind="stable")
        costs = np.cumsum([errors[i].cost for i in order])
        fitting = max(1, int(np.searchsorted(costs, count, side="right")))
        # The window ends short of the first error that is not fixed.
        half = reach[order[fitting]] * 0.95 - 1 if fitting < len(order) else max(self.labels.shape)
        place = tuple(slice(max(0, int(np.ceil(m - half))), max(0, int(m + half) + 1)) for m in middle)
        accepted[place] = True
        chosen = [errors[i] for i in order[:fitting]]
        kept = [error for error in chosen if self.generator.random() >= self.habits.omissions]
        return kept, accepted

    def fix(self, error: Error) -> None:
        """Erase what was predicted and draw every true object."""
        self.labels[np.isin(self.labels, error.predicted)] = 0
        for label in error.true:
            self._draw(label)
        self.done += error.cost

    def spoil(self) -> None:
        """Make one wrong correction: delete a good object, draw one where none is, or draw one badly."""
        self.done += 1
        self.wrong += 1
        good = np.unique(self.labels[(self.labels > 0) & (self.truth > 0)])
        kind = self.generator.integers(3)
        if kind == 0 and good.size:
            self.labels[self.labels == self.generator.choice(good)] = 0
            return
        known = np.flatnonzero([box is not None for box in self._boxes])
        if not known.size:
            return
        label = int(self.generator.choice(known)) + 1
        box, mask = self._place(label)
        if kind == 1:
            free = np.argwhere((self.labels == 0) & (self.truth == 0))
            if len(free):
                corner = free[self.generator.integers(len(free))]
                self._paint_at(corner, mask)
            return
        # Shifted by half its size: an outline that belongs to nothing.
        shift = [int(n // 2 * self.generator.choice((-1, 1))) for n in mask.shape]
        self._paint_at(np.array([s.start for s in box]) + shift, mask)

    def _draw(self, label: int) -> None:
        box, mask = self._place(label)
        moved = drawn(mask, self.habits.jitter, self.generator)
        part = self.labels[box]
        part[moved & (part == 0)] = self._next
        self._next += 1

    def _place(self, label: int) -> tuple[tuple[slice, ...], NDArray[np.bool_]]:
        """Box around a true object with room for a slip, and its mask there."""
        found = self._boxes[label - 1]
        room = [3 + int(np.ceil(3 * self.habits.jitter * (s.stop - s.start))) for s in found]
        box = tuple(
            slice(max(0, s.start - r), min(n, s.stop + r))
            for s, r, n in zip(found, room, self.truth.shape, strict=True)
        )
        return box, self.truth[box] == label

    def _paint_at(self, corner: NDArray[Any], mask: NDArray[np.bool_]) -> None:
        start = np.clip(corner, 0, np.array(self.labels.shape) - 1)
        part = self.labels[tuple(slice(s, s + n) for s, n in zip(start, mask.shape, strict=True))]
        part[mask[tuple(slice(0, n) for n in part.shape)]] = self._next
        self._next += 1


def _painted_slice(truth: Labels, jitter: float, slip: bool, generator: np.random.Generator) -> Labels:
    """One slice of classes painted by hand; with a slip it lies several pixels beside the truth."""
    painted = np.zeros_like(truth)
    for label in np.unique(truth[truth > 0]).tolist():
        moved = drawn(truth == label, jitter, generator)
        painted[moved & ((painted == 0) | (truth == label))] = label
    if slip:
        shift = generator.choice((-1, 1), size=2) * generator.integers(3, 7, size=2)
        painted = np.roll(painted, tuple(int(n) for n in shift), axis=(0, 1))
    return painted
