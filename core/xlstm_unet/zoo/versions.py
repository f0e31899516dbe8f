"""Versions of fine-tuned models: a tree below each root, on disk, with undo."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.finetune import FineTuned


@dataclass(frozen=True)
class Version:
    """One version of a model; ``fields`` are those of ``docs/worker-protocol.md``."""

    id: str
    folder: Path
    fields: dict[str, Any]


def add_pending(
    model: str | Path, tuned: FineTuned, corrections: Sequence[Corrections], *, name: str | None = None
) -> Version:
    """Write a fine-tuned model as a pending version of ``model``."""
    raise NotImplementedError


def keep_version(version: str, *, name: str | None = None, force: bool = False) -> Version:
    """Keep a pending version: it becomes the model's current one."""
    raise NotImplementedError


def discard_version(version: str) -> bool:
    """Remove a pending version."""
    raise NotImplementedError


def list_versions(model: str | None = None) -> list[dict[str, Any]]:
    """List fine-tuned models with their versions, kept and pending."""
    raise NotImplementedError


def undo_version(model: str) -> dict[str, Any]:
    """Make the parent of the current version current."""
    raise NotImplementedError


def use_version(model: str, number: int) -> dict[str, Any]:
    """Make a kept version current."""
    raise NotImplementedError


def remove_model(model: str) -> None:
    """Remove a fine-tuned model with all its versions."""
    raise NotImplementedError
