from __future__ import annotations

import copy
import subprocess
import sys

import numpy as np
import pytest
import torch

from xlstm_unet.errors import DeviceError
from xlstm_unet.nets import best_device, build_network, compute_dtype, inference_context, prepare
from xlstm_unet.zoo.nnunet import import_nnunet

CPU = torch.device("cpu")


def test_automatic_device_is_one_that_works() -> None:
    for name in ("auto", None):
        assert torch.zeros(1, device=best_device(name)).sum() == 0
    assert best_device("cpu") == best_device(CPU) == CPU


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "cpu:x", "meta", ""])
def test_unknown_device(name: str) -> None:
    with pytest.raises(DeviceError, match=f'"{name}"'):
        best_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_missing_gpu_is_named() -> None:
    with pytest.raises(DeviceError, match='"cuda" is not available: found cpu'):
        best_device("cuda")


def test_prepare_leaves_the_network_alone(make_spec) -> None:
    network = build_network(make_spec("dense")).train()
    before = copy.deepcopy(network.state_dict())
    prepared = prepare(network, CPU, precision="bfloat16")
    with torch.no_grad():
        for parameter in prepared.parameters():
            parameter.zero_()
    assert network.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_prepared_network_is_for_inference(make_spec) -> None:
    prepared = prepare(build_network(make_spec("dense")), CPU, precision="bfloat16")
    assert not prepared.training
    assert not any(p.requires_grad for p in prepared.parameters())
    assert prepared.stem[0].conv1.weight.dtype == torch.bfloat16
    assert prepared.encoder[0].mixer.q.dtype == torch.float32
    assert prepared.stem[1].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    with inference_context(CPU):
        y = prepared(torch.randn(1, 1, 20, 30))
    assert y.dtype == torch.float32
    assert y.is_inference()


@pytest.mark.parametrize("variant", ["bot", "enc", "dense"])
@pytest.mark.parametrize("patch", [(64, 64), (16, 32, 32)], ids=["2D", "3D"])
def test_float32_prepared_is_as_exact_as_the_network(make_spec, variant: str, patch: tuple[int, ...]) -> None:
    network = build_network(make_spec(variant, patch), generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 1, *patch)
    with inference_context(CPU):
        y = prepare(network, CPU, precision="float32")(x)
        plain = network(x)
    exact = network.double()(x.double()).detach()
    assert (y - exact).norm() <= 3 * (plain - exact).norm()
    assert (y - exact).norm() <= 1e-4 * exact.norm()


@pytest.mark.parametrize("case", ["enc_2d", "bot_3d"])
def test_bfloat16_costs_little_accuracy(copied_golden, case: str) -> None:
    """Random weights are the hard case: trained ones give clearer decisions."""
    folder = copied_golden / case
    network = import_nnunet(next(folder.glob("*__*"))).network
    x = torch.from_numpy(np.load(folder / "input.npy"))
    exact = torch.from_numpy(np.load(folder / "logits_0.npy"))
    with inference_context(CPU):
        y = prepare(network, CPU, precision="bfloat16")(x)
        with torch.autocast("cpu", torch.bfloat16):
            autocast = network(x)
    error = (y - exact).norm() / exact.norm()
    assert 1e-4 < error < 0.15
    if compute_dtype(CPU) == torch.bfloat16:  # elsewhere nobody computes in it, and oneDNN rounds otherwise
        assert error < 1.1 * (autocast - exact).norm() / exact.norm()
    assert (y.argmax(1) == exact.argmax(1)).float().mean() > 0.93


def test_compute_dtype_is_bfloat16_exactly_where_the_cpu_computes_in_it() -> None:
    capabilities = torch.cpu.get_capabilities()
    native = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    assert compute_dtype(CPU) == (torch.bfloat16 if native else torch.float32)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_tuned_allocator_keeps_memory() -> None:
    """In a process of its own: after some rounds a large map lies in pages that are there already."""
    code = (
        "import torch; from xlstm_unet.allocator import tune_allocator\n"
        "assert tune_allocator()\n"
        "import resource\n"
        "def faults():\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(9_000_000)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "for _ in range(20): faults()\n"
        "print(faults())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 1000
