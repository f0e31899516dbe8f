"""The network: residual U-Net with ViL layers, 2D and 3D."""

from __future__ import annotations

from xlstm_unet.nets.build import build_network, count_parameters
from xlstm_unet.nets.ensemble import Ensemble
from xlstm_unet.nets.runtime import best_device, compute_dtype, inference_context, prepare
from xlstm_unet.nets.unet import Network
from xlstm_unet.nets.vil import ViLLayer

__all__ = [
    "Ensemble",
    "Network",
    "ViLLayer",
    "best_device",
    "build_network",
    "compute_dtype",
    "count_parameters",
    "inference_context",
    "prepare",
]
