"""The mLSTM operation of xLSTM and the Vision-LSTM layer around it, for images: any length, any width."""

from __future__ import annotations

from xlstm_kernels.cell import mlstm
from xlstm_kernels.vil import vil_layer
from xlstm_kernels.weights import ViLWeights

__all__ = ["ViLWeights", "mlstm", "vil_layer"]
