"""Checkpoints of a training: written whole, read without pickle."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import torch

from xlstm_unet.errors import TrainingError
from xlstm_unet.files import atomic_path

CHECKPOINT, BEST = "checkpoint.pt", "best.pt"
MAX_BYTES = 8 << 30


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors and plain values; the old file stays until the new one is whole.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load(path: Path, keys: set[str]) -> dict[str, Any]:
    """Read a state with exactly these keys, tensors on the CPU.

    Raises
    ------
    TrainingError
        If the file is missing, damaged, or something else.
    """
    hint = "Start anew in another folder, or without --resume."
    try:
        if path.stat().st_size > MAX_BYTES:
            raise TrainingError(
                f"{path} has {path.stat().st_size} bytes, expected less than {MAX_BYTES}.", hint
            )
        state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise TrainingError(f"{path} does not exist: there is nothing to resume.", hint) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is damaged: {str(error).splitlines()[0]:.200}", hint) from error
    if not isinstance(state, dict) or set(state) != keys:
        raise TrainingError(f"{path} is no training state of this version.", hint)
    return state
