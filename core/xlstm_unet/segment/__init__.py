"""Segmenting: tiles, the network, decoding of instances and classes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_unet.segment.instances import decode_instances
    from xlstm_unet.segment.segmentation import Maps, Segmentation
    from xlstm_unet.segment.segmenter import Segmenter

__all__ = ["Maps", "Segmentation", "Segmenter", "decode_instances"]

_HOME = {
    "Maps": "segmentation",
    "Segmentation": "segmentation",
    "Segmenter": "segmenter",
    "decode_instances": "instances",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: decoding and stitching need no torch."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
