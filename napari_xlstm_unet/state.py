"""State of the dock, free of Qt: evented dataclasses that the widget shows and that tests read and set."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from psygnal import SignalGroupDescriptor

from napari_xlstm_unet.channels import ChannelChoice
from napari_xlstm_unet.regions import Region
from xlstm_unet.spec import ModelSpec


class Phase(StrEnum):
    """What the plugin is doing."""

    STARTING = "starting"
    READY = "ready"
    RUNNING = "running"
    TRAINING = "training"
    """Fine-tuning: it has buttons of its own."""
    CANCELLING = "cancelling"
    BROKEN = "broken"
    """The worker could not be started; pressing the button tries again."""


class Finish(StrEnum):
    """How the last run ended."""

    NONE = "none"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True)
class ModelInfo:
    """A model that may be chosen.

    Parameters
    ----------
    name
        Name to ask the worker for.
    origin
        ``embedded``, ``downloaded`` or ``own``.
    problem
        Why it cannot be used; empty when it can.
    source
        Where on the Hub it came from, and at which revision; empty for others.
    licence, size_bytes
        As it states, and on the disk.
    """

    name: str
    origin: str = "embedded"
    problem: str = ""
    source: str = ""
    licence: str = ""
    size_bytes: int = 0

    @property
    def provenance(self) -> str:
        """Where it comes from, in words."""
        return self.source or {"embedded": "this package", "own": "yours"}.get(self.origin, self.origin)


@dataclass(frozen=True)
class Finding:
    """One thing to know about a model and an image before they are put together.

    Parameters
    ----------
    level
        ``stop``, ``warn`` or ``note``.
    message, hint
        What it is, and what to do.
    """

    level: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class DeviceInfo:
    """Something that models run on: its name for the worker, and what it is."""

    name: str
    description: str


AUTOMATIC = DeviceInfo("auto", "Automatic")


@dataclass
class ModelState:
    """The part "Model"."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    models: tuple[ModelInfo, ...] = ()
    name: str = ""
    """The chosen model; empty while none is known."""
    spec: ModelSpec | None = None
    """What the chosen model is; None until the worker has told."""
    devices: tuple[DeviceInfo, ...] = (AUTOMATIC,)
    device: str = AUTOMATIC.name


@dataclass
class JobState:
    """The running work, or the last one."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    phase: Phase = Phase.STARTING
    progress: float = 0.0
    """From 0 to 1."""
    status: str = "Starting the worker…"
    finish: Finish = Finish.NONE

    @property
    def busy(self) -> bool:
        """Whether work is running or being cancelled."""
        return self.phase in (Phase.RUNNING, Phase.TRAINING, Phase.CANCELLING)


@dataclass
class SegmentState:
    """The part "Segment": what to segment and how."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    layers: tuple[str, ...] = ()
    layer: str = ""
    axes: str = ""
    """How the layer's array is read, one letter an axis."""
    axes_choices: tuple[str, ...] = ()
    reading: str = ""
    """The same in words."""
    channel_choices: tuple[ChannelChoice, ...] = ()
    channel: int = 0
    """Place in ``channel_choices``."""
    levels: tuple[str, ...] = ()
    """Sizes of the levels of a multiscale image; empty for others."""
    level: int = -1
    """-1 takes the level that fits the model's pixel size."""
    regions: tuple[Region, ...] = tuple(Region)
    region: Region = Region.ALL
    boxes: tuple[str, ...] = ()
    """Names of the Shapes layers."""
    box: str = ""
    can_stitch: bool = False
    stitch: bool = True
    auto_diameter: bool = True
    diameter: float = 30.0
    """In pixels of the full resolution; shows the estimate after an automatic run."""
    has_diameter: bool = False
    """Whether the chosen model scales images by object diameter."""
    findings: tuple[Finding, ...] = ()
    """What speaks against segmenting this image with the chosen model."""


@dataclass
class AdjustState:
    """The sliders that decode the kept maps again."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    available: bool = False
    layer: str = ""
    """Result layer that the sliders change."""
    threshold: float = 0.5
    seed_height: float = 0.15
    min_size: int = 16
    count: int = 0
    """Objects in the layer."""
    pending: bool = False
    """Whether a change is not yet shown."""


@dataclass
class MeasureState:
    """The table of measurements."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    layer: str = ""
    """What was measured."""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[float, ...], ...] = ()
    """One row an object, the label first."""
    pending: bool = False


@dataclass
class BatchState:
    """Segmenting every image of a folder."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    source: str = ""
    target: str = ""
    measure: bool = True
