"""Learning: data sets, augmentation, losses, training, and the replay pack."""

from __future__ import annotations

from xlstm_unet.learn.config import TrainConfig, recipe_names
from xlstm_unet.learn.dataset import Dataset, Sample, open_dataset
from xlstm_unet.learn.replay import ReplayPack, ReplayPatch, make_replay
from xlstm_unet.learn.targets import instance_targets
from xlstm_unet.learn.train import TrainEvent, TrainResult, train

__all__ = [
    "Dataset",
    "ReplayPack",
    "ReplayPatch",
    "Sample",
    "TrainConfig",
    "TrainEvent",
    "TrainResult",
    "instance_targets",
    "make_replay",
    "open_dataset",
    "recipe_names",
    "train",
]
