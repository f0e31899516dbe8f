"""How long a network takes: one training step, and one image on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter

import torch

from xlstm_unet.learn.losses import Targets
from xlstm_unet.learn.optimise import Optimisation
from xlstm_unet.nets import build_network, inference_context, prepare
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.arms import Arm

INFERENCE_SIDE = 512
"""Of the image that networks for planes are timed on; volumes have the size of a patch."""


def inference_size(spec: ModelSpec) -> tuple[int, ...]:
    """Return the size of the image that a network is timed on."""
    return (INFERENCE_SIDE,) * 2 if spec.dimension == 2 else spec.patch_size


def training_step_seconds(arm: Arm, device: torch.device, *, repeats: int = 3) -> float:
    """Least time of one step on a batch of noise, alone on the device: other work only adds to it."""
    config = arm.config
    network = build_network(config.model, network_type=arm.network_type).to(device).train()
    optimisation = Optimisation(network, config)
    size = (config.sampling.batch, *config.model.patch_size)
    image = torch.rand(size[0], config.model.input_channels, *size[1:], device=device)
    classes = torch.randint(config.model.output_channels - 1, size, device=device)
    distance = torch.rand(size, device=device) if config.model.task == "instances" else None

    def step() -> None:
        optimisation.step(image, Targets(classes, distance), 0, 0.0)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return _least_seconds(step, repeats)


def cpu_inference_seconds(arm: Arm, *, threads: int = 2, repeats: int = 7) -> float:
    """Least time of the network alone on one image of `inference_size`, warm, on this machine's CPU."""
    config = arm.config
    device = torch.device("cpu")
    network = prepare(build_network(config.model, network_type=arm.network_type).eval(), device)
    image = torch.rand(1, config.model.input_channels, *inference_size(config.model))
    with _threads(threads), inference_context(device):
        return _least_seconds(lambda: network(image), repeats)


def _least_seconds(work: Callable[[], object], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        started = perf_counter()
        work()
        seconds.append(perf_counter() - started)
    return min(seconds)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
