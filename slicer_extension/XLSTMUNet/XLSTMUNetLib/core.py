"""Where the core (``xlstm_unet``, ``xlstm_kernels``) lies: it is shipped with the extension."""

from __future__ import annotations

import sys
from pathlib import Path

_MODULE = Path(__file__).resolve().parents[1]
PACKAGED = "XLSTMUNetCore"
"""Folder beside ``XLSTMUNetLib`` that CMake puts the core into."""


def core_folders() -> list[Path]:
    """Return the folders that hold the core's packages: those of the package, else of the checkout.

    Raises
    ------
    ImportError
        If there are none: the extension was not installed whole.
    """
    packaged = _MODULE / PACKAGED
    if packaged.is_dir():
        return [packaged]
    checkout = _MODULE.parents[1]
    folders = [checkout / "core", checkout / "kernels"]
    if not (folders[0] / "xlstm_unet").is_dir():
        raise ImportError(
            f"The extension is not whole: there is neither {packaged} nor {folders[0] / 'xlstm_unet'}. "
            "Install it again with the Extensions Manager."
        )
    return folders


def add_core_to_path() -> None:
    """Make the shipped core importable, before any other copy of it."""
    for folder in reversed(core_folders()):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
