"""What a model is: the specification stored as ``model.json`` in every bundle."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMAT_VERSION: Final = 2
"""Version of ``model.json``; a reader accepts its own version and older ones."""

_SINCE_2 = ("regions", "pipeline", "orientation", "transpose", "mirror_axes", "mirror", "folds")
"""Fields that version 1 did not have; a version 1 file with one of them is no version 1 file."""

Positive = Annotated[int, Field(ge=1)]
Blocks = Annotated[int, Field(ge=1, le=64)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkSpec(_Model):
    """Shape of the network (see ``xlstm_unet.nets``)."""

    variant: Literal["bot", "enc", "dense"]
    """Where ViL layers stand: bottleneck, alternate encoder stages as released, or every stage."""
    mixer: Literal["vil", "none"] = "vil"
    """``none`` leaves the ViL layers out: the convolution-only network."""
    features: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=12)]
    """Width of each stage, finest first."""
    kernels: tuple[tuple[Positive, ...], ...]
    """Convolution kernel of each stage, one number an axis."""
    strides: tuple[tuple[Positive, ...], ...]
    """Stride on entering each stage, one number an axis; the first is all ones."""
    encoder_blocks: tuple[Blocks, ...]
    """Residual blocks of each stage."""
    decoder_blocks: tuple[Blocks, ...]
    """Residual blocks of each decoder step, deepest first; one fewer than stages."""
    direction: Literal["forward", "paired"] = "forward"
    """``forward``: every layer scans top-left to bottom-right, as released; ``paired``: odd ones reversed."""
    channel_tokens: bool = False
    """Swap tokens and channels where a planned map has no more positions than channels (released Enc)."""
    finest_skip: bool = True
    """Whether the last decoder step concatenates its skip; the released 2D network does not."""

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        stages = len(self.features)
        for field, want in (
            ("kernels", stages),
            ("strides", stages),
            ("encoder_blocks", stages),
            ("decoder_blocks", stages - 1),
        ):
            if len(getattr(self, field)) != want:
                raise ValueError(
                    f"{field} has {len(getattr(self, field))} entries, expected {want} for {stages} stages"
                )
        return self


class Label(_Model):
    """One thing that the model finds; value 0 is always background."""

    value: Positive
    name: Annotated[str, Field(min_length=1, max_length=100)]
    color: tuple[int, int, int] = (255, 170, 0)
    terminology: str = ""
    """Coded meaning, as 3D Slicer writes terminology entries; empty when there is none."""


class Region(_Model):
    """Labels that the network predicts together, as one output of their own (a whole tumour, for example)."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    values: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """Labels that it is made of."""
    paint: Positive
    """Label that its voxels get; regions are painted in their order, later ones over earlier ones."""


class Normalisation(_Model):
    """How intensities become network input."""

    scheme: Literal["percentile", "zscore", "ct", "rescale01", "rgb01", "none"]
    low: float = 1.0
    """Lower percentile (``percentile``) or clipping value (``ct``)."""
    high: float = 99.8
    """Upper percentile (``percentile``) or clipping value (``ct``)."""
    mean: float = 0.0
    """Mean subtracted by ``ct``."""
    std: Annotated[float, Field(gt=0)] = 1.0
    """Standard deviation divided by in ``ct``."""
    masked: bool = False
    """``zscore``: mean and standard deviation of the voxels that are not background zeros; these stay 0."""

    @model_validator(mode="after")
    def _mask_fits(self) -> Self:
        if self.masked and self.scheme != "zscore":
            raise ValueError(f"masked is true with scheme {self.scheme}, expected zscore")
        return self


class Decoding(_Model):
    """Defaults of the instance decoder, chosen on the validation split."""

    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """Foreground probability from which a pixel belongs to an object."""
    seed_height: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """h of the h-maxima of the normalised distance (1 at the middle of an object)."""
    min_size: Annotated[int, Field(ge=0)] = 16
    """Objects of fewer pixels, at the model's scale, are dropped.

    In images enlarged by f, those of fewer than ``min_size / f`` pixels of the image.
    """


class FieldOfView(_Model):
    """What the model was shown in training, where that is less than a whole image."""

    description: str
    """In words, for example "a crop around one hippocampus"."""
    extent_mm: tuple[float, ...]
    """Usual size of such a crop in mm, axis order of the array."""
    max_extent_mm: tuple[float, ...]
    """An image larger than this needs a region."""


class ModelSpec(_Model):
    """Everything needed to rebuild a network and to prepare its input and decode its output."""

    format_version: Literal[2] = FORMAT_VERSION
    name: Name
    description: str = ""
    dimension: Literal[2, 3]
    input_channels: Annotated[int, Field(ge=1, le=64)] = 1
    channel_names: tuple[str, ...] = ()
    """Names shown to users, one a channel; empty when there is only one."""
    accepts_gray: bool = False
    """A single-channel image is repeated over the input channels (models for gray or RGB)."""
    task: Literal["instances", "classes"]
    labels: Annotated[tuple[Label, ...], Field(min_length=1, max_length=1000)]
    regions: Annotated[tuple[Region, ...], Field(max_length=1000)] = ()
    """Where outputs are not single labels: the outputs, each a probability of its own (classes only)."""
    network: NetworkSpec
    folds: Annotated[int, Field(ge=1, le=10)] = 1
    """Networks of the same shape, trained on other folds, whose logits are averaged."""
    normalisation: Annotated[tuple[Normalisation, ...], Field(min_length=1)]
    """One entry for all channels together, or one a channel."""
    pipeline: Literal["own", "nnunet"] = "own"
    """How images are prepared and tiles joined; ``nnunet`` exactly as nnU-Net 2 does it."""
    orientation: Annotated[str, Field(pattern="^[LRAPSI]{3}$")] | None = None
    """Where the array axes of a volume (Z, Y, X) point, such as SAR; None takes volumes as stored."""
    transpose: tuple[int, int, int] = (0, 1, 2)
    """Array axes of a volume (Z, Y, X) in the order that the network takes; planes lie across the first."""
    patch_size: tuple[Positive, ...]
    """Spatial size the network was trained on, and the tile to start from, in voxels, axes of the network."""
    spacing: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Voxel size to resample to, in ``spacing_unit``, axes of the network."""
    spacing_unit: Literal["mm", "µm"] | None = None
    object_diameter: Annotated[float, Field(gt=0)] | None = None
    """Typical object diameter in pixels at the model's scale (instances only)."""
    mirror_axes: tuple[int, ...] | None = None
    """Axes of the network along which mirrored copies may be averaged; None for all."""
    mirror: bool = False
    """Whether they are averaged where nobody says otherwise: worth its time for small images."""
    decoding: Decoding = Decoding()
    field_of_view: FieldOfView | None = None

    @property
    def output_channels(self) -> int:
        """Channels of the head.

        Instances: three classes and a distance; classes: background and labels, or the regions.
        """
        if self.task == "instances":
            return 4
        return len(self.regions) or 1 + len(self.labels)

    @model_validator(mode="before")
    @classmethod
    def _from_older(cls, fields: Any) -> Any:
        """Take what version 1 wrote: the fields that came later have their defaults."""
        if not isinstance(fields, dict) or fields.get("format_version") != 1:
            return fields
        for field in _SINCE_2:
            if field in fields:
                raise ValueError(f"{field} is a field of format version 2, format_version is 1")
        return fields | {"format_version": FORMAT_VERSION}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        axes = self.dimension
        checks = {
            "patch_size": len(self.patch_size),
            "spacing": len(self.spacing) if self.spacing else axes,
            **{f"network.kernels[{i}]": len(k) for i, k in enumerate(self.network.kernels)},
            **{f"network.strides[{i}]": len(s) for i, s in enumerate(self.network.strides)},
        }
        for field, found in checks.items():
            if found != axes:
                raise ValueError(f"{field} has {found} entries, expected {axes} for a {axes}D model")
        if len(self.normalisation) not in (1, self.input_channels):
            raise ValueError(
                f"normalisation has {len(self.normalisation)} entries, expected 1 or {self.input_channels}"
            )
        if self.channel_names and len(self.channel_names) != self.input_channels:
            raise ValueError(
                f"channel_names has {len(self.channel_names)} entries, expected {self.input_channels}"
            )
        if (self.spacing is None) != (self.spacing_unit is None):
            raise ValueError("spacing and spacing_unit must be given together")
        values = [label.value for label in self.labels]
        if values != list(range(1, len(values) + 1)):
            raise ValueError(f"label values are {values}, expected 1 to {len(values)} in order")
        if self.pipeline == "nnunet" and self.task != "classes":
            raise ValueError(f"pipeline is nnunet with the task {self.task}, expected classes")
        self._check_axes()
        self._check_regions()
        return self

    def _check_axes(self) -> None:
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError(f"transpose is {self.transpose}, expected the axes 0, 1 and 2 in some order")
        mirrored = self.mirror_axes or ()
        if len(set(mirrored)) != len(mirrored) or not set(mirrored) <= set(range(self.dimension)):
            raise ValueError(f"mirror_axes is {mirrored}, expected some of 0 to {self.dimension - 1}")
        if self.orientation is not None and any(
            len(set(pair) & set(self.orientation)) != 1 for pair in ("LR", "AP", "SI")
        ):
            raise ValueError(
                f"orientation is {self.orientation}, expected one of L and R, one of A and P, one of S and I"
            )

    def _check_regions(self) -> None:
        if self.regions and self.task != "classes":
            raise ValueError(f"regions are given for the task {self.task}, expected classes")
        for region in self.regions:
            if max(*region.values, region.paint) > len(self.labels):
                raise ValueError(
                    f"region {region.name} holds or paints {max(*region.values, region.paint)}, "
                    f"expected labels from 1 to {len(self.labels)}"
                )
