"""Running a network fast: device, precision and memory layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from xlstm_unet.errors import DeviceError
from xlstm_unet.nets.unet import Network

Precision = Literal["auto", "float32", "bfloat16"]


def best_device(name: str | torch.device | None = "auto") -> torch.device:
    """Return the device of that name, or the fastest one there is.

    Parameters
    ----------
    name
        "auto" or None: CUDA, then MPS, then the CPU. Otherwise "cpu", "cuda", "cuda:1" or "mps".

    Raises
    ------
    DeviceError
        If there is no such device.
    """
    if name is None or name == "auto":
        return torch.device("cuda" if _has_cuda() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f'There is no device "{name}".', "Choose auto, cpu, cuda or mps.") from error
    found = {"cpu": 1, "cuda": torch.cuda.device_count() if _has_cuda() else 0, "mps": int(_has_mps())}
    if (device.index or 0) >= found.get(device.type, 0):
        raise DeviceError(
            f'Device "{name}" is not available: found {", ".join(k for k, n in found.items() if n)}.',
            "Choose one of these, or auto.",
        )
    return device


@cache
def compute_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that convolutions are fastest in: bfloat16 on most GPUs, and CPUs that have it."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        # Older versions of torch cannot tell; without such instructions bfloat16 is emulated and slower.
        capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        fast = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32


def prepare(network: Network, device: torch.device, *, precision: Precision = "auto") -> Network:
    """Return a copy of a network for inference on a device; the given one stays as it is.

    The copy is in evaluation mode and needs no gradients. Its convolutions are in channels-last layout and in
    the device's `compute_dtype`, converted once here instead of at every call as autocast does; norms take
    their statistics in float32, ViL layers and the returned logits are float32.

    Parameters
    ----------
    network
        Network in float32.
    device
        Where it will run.
    precision
        "float32" for exact results, or "bfloat16"; "auto" picks the faster one.
    """
    dtype = compute_dtype(device) if precision == "auto" else getattr(torch, precision)
    with torch.device("meta"):
        copy = type(network)(network.spec)
    layout = torch.channels_last if network.spec.dimension == 2 else torch.channels_last_3d
    convolutions = {
        f"{name}.{part}"
        for name, module in copy.named_modules()
        if isinstance(module, nn.Conv2d | nn.Conv3d)
        for part in ("weight", "bias")
    }

    def converted(name: str, tensor: Tensor) -> Tensor:
        if name not in convolutions:
            return tensor.detach().to(device, copy=True)
        fitting = layout if tensor.ndim > 1 else torch.preserve_format
        return tensor.detach().to(device, dtype, copy=True, memory_format=fitting)

    copy.load_state_dict({n: converted(n, t) for n, t in network.state_dict().items()}, assign=True)
    return copy.requires_grad_(False).eval()


@contextmanager
def inference_context(device: torch.device) -> Iterator[None]:
    """Run a prepared network without recording gradients and without autocast (its weights say the dtype)."""
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        yield


def _has_cuda() -> bool:
    return torch.cuda.is_available()


def _has_mps() -> bool:
    return torch.backends.mps.is_available()
