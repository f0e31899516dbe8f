"""Protocols of simulated corrections: one TOML file a domain, checked before anything is read."""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xlstm_unet.errors import ConfigError
from xlstm_unet.study.annotator import Habits

_MAX_BYTES = 1 << 20

Count = Annotated[int, Field(ge=1)]
Split = Literal["train", "val", "test"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Images(_Part):
    """Some samples of a data set."""

    dataset: str
    """Folder, below the folder of data sets."""
    split: Split
    modalities: tuple[str, ...] = ()
    """Kinds of images; all when empty."""
    max_images: Count | None = None
    """Most images, spread over those there are."""


class Shift(_Part):
    """A change of the images and, where they are resampled, of their truth; in this order."""

    scale: Annotated[float, Field(gt=0, le=8)] = 1.0
    """Resampled by this factor."""
    thickness: Annotated[int, Field(ge=1, le=16)] = 1
    """Slices (first axis) averaged into one."""
    gamma: Annotated[float, Field(gt=0, le=10)] = 1.0
    """Contrast curve: values between the extremes to this power."""
    bias: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Smooth brightening and darkening over the image, up to this natural logarithm."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Standard deviation of Gaussian noise, as a share of the 1 to 99.8 percentile range."""


class Round(_Part):
    """What a person does before pressing Fine-tune."""

    images: Count = 1
    """New images opened."""
    corrections: Count = 7
    """Objects fixed (instances) or slices painted (classes) on them together."""


class Protocol(_Part):
    """A domain, and how simulated people correct it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]
    title: str = ""
    model: str
    """Root model: a name, or a folder."""
    pool: Images
    """Images that are corrected."""
    target: Images
    """Images that are scored before and after."""
    source: Images | None = None
    """Images of the root's own domain, on which it must not get worse."""
    shift: Shift = Shift()
    """Applied to ``pool`` and ``target``."""
    habits: Habits = Habits()
    rounds: Annotated[tuple[Round, ...], Field(min_length=1, max_length=20)] = (
        Round(images=3, corrections=20),
    )
    users: Count = 5
    arms: Annotated[tuple[str, ...], Field(min_length=1)] = ("ours",)
    steps: Count | None = None
    """Steps of a fine-tuning; with neither this nor ``budget`` a budget of 60 seconds."""
    budget: Annotated[float, Field(ge=1, le=3600)] | None = None
    """Seconds of a fine-tuning."""
    dense_images: Count = 5
    """Images of the arm "dense"."""

    @classmethod
    def read(cls, source: Path | str) -> Self:
        """Read a TOML file, or a protocol of this package by its name.

        Raises
        ------
        ConfigError
            If there is no such file, or a field is unknown, missing or out of range.
        """
        try:
            return cls.model_validate(tomllib.loads(_text(source)))
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{source} is not valid TOML: {error}.") from error
        except ValidationError as error:
            raise ConfigError(f"{source}: {_first(error)}.") from error

    def adapted(self, **changes: Any) -> Self:
        """Return the protocol with other values; those that are None stay.

        Raises
        ------
        ConfigError
            If they are out of range.
        """
        values = {
            **self.model_dump(),
            **{name: value for name, value in changes.items() if value is not None},
        }
        try:
            return self.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{self.name}: {_first(error)}.") from error

    def scored_on(self, split: str) -> Self:
        """Return the protocol with ``target`` and ``source`` from another split."""
        values = self.model_dump()
        for part in ("target", "source"):
            if values[part] is not None:
                values[part]["split"] = split
        return self.model_validate(values)

    @property
    def images_corrected(self) -> int:
        """Images that a person opens in all."""
        return sum(part.images for part in self.rounds)

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if self.steps is not None and self.budget is not None:
            raise ValueError("steps and budget are both given, expected one of them")
        return self


def protocol_names() -> tuple[str, ...]:
    """Names of the protocols that come with the package."""
    folder = resources.files("xlstm_unet.study") / "protocols"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def _text(source: Path | str) -> str:
    if str(source) in protocol_names():
        file = resources.files("xlstm_unet.study") / "protocols" / f"{source}.toml"
        return file.read_text(encoding="utf-8")
    path = Path(source)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} has {path.stat().st_size} bytes, expected a small TOML file.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}.",
            f"Give a TOML file or one of the protocols {', '.join(protocol_names())}.",
        ) from error


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"]) or "the file"
    return f"{field}: {first['msg']} (found {first['input']!r:.80})"
