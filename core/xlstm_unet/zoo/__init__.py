"""Model bundles: reading, writing, finding."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_unet.zoo.bundle import Bundle, read_bundle, write_bundle
    from xlstm_unet.zoo.nnunet import import_nnunet
    from xlstm_unet.zoo.store import ModelEntry, list_models, load, load_model

__all__ = [
    "Bundle",
    "ModelEntry",
    "import_nnunet",
    "list_models",
    "load",
    "load_model",
    "read_bundle",
    "write_bundle",
]

_HOME = {
    "Bundle": "bundle",
    "ModelEntry": "store",
    "import_nnunet": "nnunet",
    "list_models": "store",
    "load": "store",
    "load_model": "store",
    "read_bundle": "bundle",
    "write_bundle": "bundle",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: listing models needs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
