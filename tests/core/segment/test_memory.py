"""Doing with less when memory runs out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from xlstm_unet.errors import DeviceError
from xlstm_unet.segment.memory import MemoryLadder, Setting, is_out_of_memory

CPU = torch.device("cpu")
META = torch.device("meta")


class Greedy(nn.Module):
    """Runs out of memory, as torch says it, above a number of voxels."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def forward(self, x: Tensor) -> Tensor:
        if x.numel() > self.most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {x.numel()} bytes.\nmore")
        return x


def run(ladder: MemoryLadder, network: nn.Module) -> Setting:
    def work(setting: Setting) -> Setting:
        network(torch.zeros((setting.batch, *setting.tile), device=setting.device))
        return setting

    return ladder.run(work)


def test_first_the_batch_is_halved_then_the_tile() -> None:
    ladder = MemoryLadder(Setting(CPU, (64, 64), 4), (16, 16))
    assert run(ladder, Greedy(4 * 64 * 64)) == ladder.start
    assert ladder.note == ""
    assert run(ladder, Greedy(2 * 64 * 64)) == Setting(CPU, (64, 64), 2)
    assert run(ladder, Greedy(32 * 32)) == Setting(CPU, (32, 32), 1)
    assert run(ladder, Greedy(10**9)) == Setting(CPU, (32, 32), 1), "it stays where it got to"
    assert ladder.note == (
        "Memory was short for 4 tiles of 64 x 64 at once on cpu: used 1 tile of 32 x 32 at once on cpu."
    )


def test_tiles_stay_multiples_of_the_smallest() -> None:
    ladder = MemoryLadder(Setting(CPU, (112, 40), 1), (16, 16))
    assert run(ladder, Greedy(48 * 16)).tile == (48, 16)


def test_last_the_cpu_with_the_first_tile() -> None:
    class GreedyElsewhere(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.device != CPU:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return x

    ladder = MemoryLadder(Setting(META, (64, 64), 2), (32, 32))
    assert run(ladder, GreedyElsewhere()) == Setting(CPU, (64, 64), 1)


def test_nothing_left_to_try_is_a_device_error() -> None:
    with pytest.raises(DeviceError, match=r"1 tile of 16 x 16 .*CUDA out of memory"):
        run(MemoryLadder(Setting(CPU, (64, 64), 2), (16, 16)), Greedy(3))


def test_other_errors_pass_through() -> None:
    def work(_: Setting) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1"):
        MemoryLadder(Setting(CPU, (64, 64), 2), (16, 16)).run(work)


def test_a_real_refusal_of_the_cpu_allocator_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))


@pytest.mark.gpu
def test_a_real_gpu_that_is_full() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA GPU")
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.empty(2**50, dtype=torch.uint8, device="cuda")
    assert is_out_of_memory(caught.value)
