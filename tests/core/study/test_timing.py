"""What a network costs."""

from __future__ import annotations

import torch

from xlstm_unet.learn import TrainConfig
from xlstm_unet.study.arms import make_arm
from xlstm_unet.study.timing import cpu_inference_seconds, training_step_seconds


def test_wider_networks_take_longer_and_threads_are_given_back(tiny: TrainConfig) -> None:
    wide = tiny.model.network.model_copy(update={"features": (24, 48, 64)})
    heavy = tiny.model_copy(update={"model": tiny.model.model_copy(update={"network": wide})})
    light, heavy_arm = make_arm("none", tiny), make_arm("none", heavy)
    before = torch.get_num_threads()
    assert (
        0 < cpu_inference_seconds(light, threads=2, repeats=2) < cpu_inference_seconds(heavy_arm, repeats=2)
    )
    assert torch.get_num_threads() == before
    cpu = torch.device("cpu")
    assert 0 < training_step_seconds(light, cpu, repeats=2) < training_step_seconds(heavy_arm, cpu, repeats=2)
