"""How a model is trained: one TOML (or JSON) file a model, checked before anything is read."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xlstm_unet.errors import ConfigError
from xlstm_unet.spec import ModelSpec

MAX_CONFIG_BYTES = 1 << 20

Probability = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Crop(_Part):
    """Size of the crops of a step; the batch shrinks or grows to keep the number of pixels."""

    size: tuple[Annotated[int, Field(ge=8, le=4096)], ...]
    weight: Positive = 1.0
    """How often this size is drawn, relative to the others."""


class Sampling(_Part):
    """What a step is made of."""

    batch: Annotated[int, Field(ge=1, le=4096)] = 16
    """Crops of the model's patch size in a step."""
    crops: tuple[Crop, ...] = ()
    """Crop sizes to draw from; the patch size alone when empty."""
    foreground: Probability = 0.5
    """Share of the crops placed around a labelled pixel; the others lie anywhere."""
    balance: Probability = 0.5
    """0: every image counts the same; 1: every modality does; 0.5: by the square root of its images."""
    empty: Probability = 0.03
    """Share of crops replaced by noise without any object."""
    background: Probability = 0.0
    """Share of crops that show the background of an image alone, normalised by themselves."""
    alone: Probability = 0.0
    """Share of the other crops that are normalised by themselves, as images of that size would be."""


class Geometry(_Part):
    """Where crops are taken from."""

    probability: Probability = 0.75
    """Share of crops that are warped; the others are flipped and turned by quarters only."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Range of the magnification, drawn on a logarithmic scale."""
    aspect: Annotated[float, Field(ge=1, le=2)] = 1.15
    """Largest extra magnification of one axis against another."""
    min_diameter: NotNegative = 7.0
    """No image is made so small that its median object has fewer pixels across."""
    max_diameter: Positive = 160.0
    """No image is made so large that its median object has more pixels across."""
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 180.0
    """Largest rotation in the plane of the last two axes."""
    tilt_degrees: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation out of that plane (3D)."""
    flips: tuple[bool, ...] = ()
    """Axes that may be mirrored; all when empty. Quarter turns need both of the last two."""
    elastic_probability: Probability = 0.3
    elastic_pixels: NotNegative = 6.0
    """Standard deviation of the elastic displacement, at control points 64 pixels apart."""


class Intensity(_Part):
    """What happens to the pixel values of a crop; images are normalised to about 0 to 1 before."""

    invert: Probability = 0.15
    gray: Probability = 0.2
    """Colour to gray."""
    colour: Probability = 0.5
    """Change of hue, saturation and channel gains."""
    tint: Probability = 0.15
    """Gray image shown in one colour, as fluorescence often is."""
    gamma: Probability = 0.4
    contrast: Probability = 0.5
    shading: Probability = 0.2
    """Smooth change of illumination over the crop."""
    blur: Probability = 0.2
    coarse: Probability = 0.1
    """Down- and upsampling by 2 to 4."""
    noise: Probability = 0.35
    strength: Annotated[float, Field(ge=0, le=3)] = 1.0
    """Scales the size of all these changes."""


class Optimiser(_Part):
    """AdamW with warm-up, cosine decay and averaged weights."""

    steps: Count = 12000
    learning_rate: Positive = 1.5e-3
    weight_decay: NotNegative = 0.03
    warmup: Annotated[int, Field(ge=0)] = 300
    """Steps until the full learning rate."""
    clip: Positive = 1.0
    """Largest norm of the gradient."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the averaged weights that are validated and kept."""


class Losses(_Part):
    """Weights of the parts of the loss."""

    dice: NotNegative = 1.0
    distance: NotNegative = 2.0
    """Smooth L1 on the distance map inside objects (instances)."""
    distance_outside: NotNegative = 0.25
    """The same in the background, relative to inside."""
    scales: tuple[NotNegative, ...] = (1.0,)
    """Weight of each output scale, finest first (deep supervision)."""


class Validation(_Part):
    """When weights are scored, and on what."""

    interval: Count = 1000
    """Steps between validations."""
    max_images: Count = 100
    """Most images used, the same ones every time."""
    thresholds: tuple[Probability, ...] = (0.4, 0.5, 0.6)
    """Foreground thresholds tried at the end (instances)."""
    seed_heights: tuple[Probability, ...] = (0.05, 0.1, 0.15, 0.2, 0.3)
    min_sizes: tuple[Annotated[int, Field(ge=0)], ...] = (0, 8, 16, 32)


class TrainConfig(_Part):
    """Everything that decides a training, but for the data.

    >>> TrainConfig.read("nuclei").model.name
    'nuclei'
    """

    model: ModelSpec
    """What is trained; decoding defaults and object diameter are filled in by training."""
    sampling: Sampling = Sampling()
    geometry: Geometry = Geometry()
    intensity: Intensity = Intensity()
    optimiser: Optimiser = Optimiser()
    losses: Losses = Losses()
    validation: Validation = Validation()
    data_licence: str = ""
    """Licence of the training data, noted in the replay pack and the model card."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @classmethod
    def read(cls, source: Path | str) -> Self:
        """Read a TOML or JSON file, or a recipe of this package by its name ("nuclei", "hippocampus-mri").

        Raises
        ------
        ConfigError
            If there is no such file, or a field is unknown, missing or out of range.
        """
        text = _text(source)
        try:
            as_json = str(source).endswith(".json")
            return cls.model_validate(json.loads(text) if as_json else tomllib.loads(text))
        except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
            kind = "JSON" if as_json else "TOML"
            raise ConfigError(f"{source} is not valid {kind}: {error}.") from error
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the file"
            raise ConfigError(f"{source}: {field}: {first['msg']} (found {first['input']!r:.80}).") from error

    def adapted(self, *, name: str | None = None, steps: int | None = None) -> Self:
        """Return the configuration with another model name or number of steps.

        Raises
        ------
        ConfigError
            If they are out of range.
        """
        values = self.model_dump()
        values["model"]["name"] = name or self.model.name
        values["optimiser"]["steps"] = self.optimiser.steps if steps is None else steps
        try:
            return self.model_validate(values)
        except ValidationError as error:
            first = error.errors()[0]
            raise ConfigError(
                f"The {first['loc'][-1]} is {first['input']!r}: {first['msg']}.",
                "A name has up to 64 letters, digits, '.', '_' and '-'; there is at least one step.",
            ) from error

    @property
    def crops(self) -> tuple[Crop, ...]:
        """Crop sizes to draw from."""
        return self.sampling.crops or (Crop(size=self.model.patch_size),)

    @property
    def flips(self) -> tuple[bool, ...]:
        """Whether each spatial axis may be mirrored."""
        return self.geometry.flips or (True,) * self.model.dimension

    @model_validator(mode="after")
    def _dimensions_fit(self) -> Self:
        axes = self.model.dimension
        for field, value in [("geometry.flips", self.flips)] + [
            (f"sampling.crops[{i}].size", crop.size) for i, crop in enumerate(self.crops)
        ]:
            if len(value) != axes:
                raise ValueError(f"{field} has {len(value)} entries, expected {axes} for a {axes}D model")
        low, high = self.geometry.scale
        if low > high:
            raise ValueError(f"geometry.scale is {low} to {high}, expected the smaller first")
        if len(self.losses.scales) > len(self.model.network.decoder_blocks) or not self.losses.scales:
            raise ValueError(
                f"losses.scales has {len(self.losses.scales)} entries, "
                f"expected 1 to {len(self.model.network.decoder_blocks)}"
            )
        return self


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that come with the package."""
    folder = resources.files("xlstm_unet.learn") / "recipes"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def _text(source: Path | str) -> str:
    if str(source) in recipe_names():
        recipe = resources.files("xlstm_unet.learn") / "recipes" / f"{source}.toml"
        return recipe.read_text(encoding="utf-8")
    path = Path(source)
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, expected a small TOML file.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.",
            f"Give a TOML or JSON file or one of the recipes {', '.join(recipe_names())}.",
        ) from error
