"""State of the part "Correct and fine-tune", and what the worker says of versions and corrections."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor

KINDS = ("added", "deleted", "reshaped", "split", "merged", "relabelled")
"""What a user can do to an object, as the worker counts it."""

BUDGETS = ((30, "30 seconds"), (120, "2 minutes"), (600, "10 minutes"))


@dataclass(frozen=True)
class Counts:
    """Corrected and accepted objects.

    Parameters
    ----------
    corrected, accepted
        Objects (regions, for models of classes) in all.
    kinds
        Corrected ones by kind, those that occur.
    """

    corrected: int = 0
    accepted: int = 0
    kinds: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, *replies: Mapping[str, int]) -> Counts:
        """Add up what the worker counted."""
        sums = {name: sum(reply.get(name, 0) for reply in replies) for name in (*KINDS, *_TOTALS)}
        kinds = tuple((kind, sums[kind]) for kind in KINDS if sums[kind])
        return cls(sums["corrected"], sums["accepted"], kinds)

    @classmethod
    def sum(cls, several: Iterable[Counts]) -> Counts:
        """Add counts up."""
        totals = (dict(each.kinds, corrected=each.corrected, accepted=each.accepted) for each in several)
        return cls.of(*totals)

    @property
    def any(self) -> bool:
        """Whether there is anything to learn from."""
        return bool(self.corrected or self.accepted)

    def __str__(self) -> str:
        """Return the counts in words."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.kinds)
        return f"{self.corrected} corrected{f' ({kinds})' if kinds else ''}, {self.accepted} accepted"


_TOTALS = ("corrected", "accepted")


@dataclass(frozen=True)
class Score:
    """How a score changed, with the interval that the change lies in."""

    name: str
    count: int
    before: float
    after: float
    low: float
    high: float

    @classmethod
    def of(cls, reply: Mapping[str, Any] | None) -> Score | None:
        """Read what the worker says; None where nothing could be measured."""
        if reply is None:
            return None
        return cls(**{name: reply[name] for name in cls.__dataclass_fields__})


@dataclass(frozen=True)
class Version:
    """A fine-tuned version of a model, pending or kept.

    Parameters
    ----------
    id, number
        What the worker calls it; a pending one has no number.
    parent
        Number of the version that it came after.
    model, folder
        Name of the model that it belongs to, and what to segment with before it is kept.
    verdict, message
        ``keep``, ``warn``, ``refuse`` or ``too-few``, and the same in a sentence.
    held_out, check
        Scores on corrections kept back, and on what the model knew before.
    counts
        What it was trained on.
    """

    id: str
    number: int | None
    parent: int | None
    model: str
    folder: str
    current: bool = False
    verdict: str = ""
    message: str = ""
    held_out: Score | None = None
    check: Score | None = None
    counts: Counts = field(default_factory=Counts)
    steps: int = 0
    seconds: float = 0.0
    created: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Version:
        """Read a version's fields."""
        scores = reply.get("scores") or {}
        return cls(
            id=reply["version"],
            number=reply["number"],
            parent=reply.get("parent"),
            model=reply["model"],
            folder=reply["folder"],
            current=bool(reply.get("current")),
            verdict=reply.get("verdict") or "",
            message=reply.get("message") or "",
            held_out=Score.of(scores.get("held_out")),
            check=Score.of(scores.get("check")),
            counts=Counts.of(reply.get("counts") or {}),
            steps=reply.get("steps") or 0,
            seconds=reply.get("seconds") or 0.0,
            created=reply.get("created") or "",
            notes=tuple(reply.get("notes") or ()),
        )


@dataclass(frozen=True)
class SavedCorrections:
    """Corrections of one image in the user's private store.

    Parameters
    ----------
    id
        What the worker calls them.
    model, image
        Names.
    shape
        Of the image's grid.
    saved
        When, as ISO 8601 in UTC.
    counts
        What they hold.
    problem
        Why they cannot be used; empty when they can.
    """

    id: str
    model: str
    image: str
    shape: tuple[int, ...]
    saved: str
    counts: Counts
    size_bytes: int
    problem: str

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> SavedCorrections:
        """Read an entry of the list."""
        return cls(
            id=reply["id"],
            model=reply["model"],
            image=reply["image"],
            shape=tuple(reply["shape"] or ()),
            saved=reply["saved"] or "",
            counts=Counts.of(reply["counts"] or {}),
            size_bytes=reply["bytes"],
            problem=reply["problem"],
        )


@dataclass
class CorrectState:
    """What the user changed or accepted in the result that is selected."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    available: bool = False
    layer: str = ""
    model: str = ""
    """The model that made it, and that learns from it."""
    counts: Counts = field(default_factory=Counts)
    pending: bool = False
    """Whether changes are not yet counted."""
    unsaved: bool = False
    """Whether changes are not yet in the store."""
    images: int = 0
    """Images (planes of stacks) in the store that the model learns from."""
    total: Counts = field(default_factory=Counts)
    """Counts over all of them."""
    overlay: bool = False
    beyond: tuple[int, ...] = ()
    """Labels that the model does not have."""
    found: str = ""
    """What an earlier session left of the chosen image, in words."""


class Training(StrEnum):
    """What fine-tuning is doing."""

    IDLE = "idle"
    RUNNING = "running"
    STOPPING = "stopping"
    CANCELLING = "cancelling"
    JUDGING = "judging"
    """It has ended; the user is to keep or discard what came of it."""
    KEEPING = "keeping"


class Shown(StrEnum):
    """Which prediction of the current image is on the screen."""

    MINE = "Mine"
    BEFORE = "Before"
    AFTER = "After"


@dataclass(frozen=True)
class Curve:
    """How training went.

    Parameters
    ----------
    loss
        (seconds, loss) of steps.
    held_out, check
        (seconds, score) where scores were taken.
    """

    loss: tuple[tuple[float, float], ...] = ()
    held_out: tuple[tuple[float, float], ...] = ()
    check: tuple[tuple[float, float], ...] = ()


@dataclass
class FinetuneState:
    """Fine-tuning: the running one, or what came of the last."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    phase: Training = Training.IDLE
    budget: int = BUDGETS[0][0]
    """Seconds."""
    status: str = ""
    progress: float = 0.0
    curve: Curve = field(default_factory=Curve)
    pending: Version | None = None
    shown: Shown = Shown.MINE
    can_compare: bool = False
    """Whether the new version's prediction of the current image is there."""

    @property
    def busy(self) -> bool:
        """Whether the worker is at it."""
        return self.phase in (Training.RUNNING, Training.STOPPING, Training.CANCELLING, Training.KEEPING)


@dataclass
class VersionsState:
    """The versions of the chosen model, and the corrections they can learn from."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    model: str = ""
    root: str = ""
    versions: tuple[Version, ...] = ()
    current: int = 0
    waiting: tuple[Version, ...] = ()
    """Pending versions that an earlier session left."""
    corrections: tuple[SavedCorrections, ...] = ()
