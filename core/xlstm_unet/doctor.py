"""A check of the installation: versions, devices, memory, kernels, models, and a timed self-test."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from xlstm_unet import __version__

_PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "scipy",
    "scikit-image",
    "tifffile",
    "nibabel",
    "safetensors",
    "pydantic",
)
_OPTIONAL = {"triton"}


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Parameters
    ----------
    name
        What was looked at.
    found
        What was found, for people.
    sound
        False when it has to be repaired.
    """

    name: str
    found: str
    sound: bool = True


def examine(device: str = "auto") -> list[Check]:
    """Run all checks; one that fails is reported, not raised.

    Parameters
    ----------
    device
        Device of the self-test, as in `xlstm_unet.nets.best_device`.
    """
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("program", _program),
        ("packages", _packages),
        ("memory", _memory),
        ("CPU", _cpu),
        ("GPU", _gpu),
        ("kernels", _kernels),
        ("models", _models),
        ("own models", _own_models),
        ("self-test", lambda: _self_test(device)),
    )
    return [_guarded(name, check) for name, check in checks]


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except Exception as error:
        return Check(name, f"{type(error).__name__}: {error}", sound=False)


def _program() -> Check:
    python = f"Python {platform.python_version()} ({sys.executable})"
    return Check("program", f"xlstm-unet {__version__}, {python}, {platform.platform(terse=True)}")


def _packages() -> Check:
    found, missing = [], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            if package not in _OPTIONAL:
                missing.append(package)
    text = ", ".join(found)
    if missing:
        text = f"missing {', '.join(missing)} (reinstall xlstm-unet); {text}"
    return Check("packages", text, sound=not missing)


def _memory() -> Check:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES") / 2**30
        free = page * os.sysconf("SC_AVPHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Check("memory", "unknown on this system")
    return Check("memory", f"{total:.1f} GB, {free:.1f} GB of it unused")


def _cpu() -> Check:
    import torch

    from xlstm_unet.nets import compute_dtype

    dtype = str(compute_dtype(torch.device("cpu"))).removeprefix("torch.")
    reason = "AMX" if dtype == "bfloat16" else "no AMX"
    threads = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return Check("CPU", f"{threads}, computes in {dtype} ({reason})")


def _gpu() -> Check:
    import torch

    found = [
        f"cuda:{i} {properties.name}, {properties.total_memory / 2**30:.1f} GB"
        for i in range(torch.cuda.device_count())
        for properties in (torch.cuda.get_device_properties(i),)
    ]
    if torch.backends.mps.is_available():
        found.append("mps (Apple)")
    return Check("GPU", "; ".join(found) or "none that torch can use; the CPU is used")


def _kernels() -> Check:
    """Compare the operation as used with its plain definition, on a small case."""
    import torch

    from xlstm_kernels import mlstm
    from xlstm_kernels.backend import select

    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 130, 2, 16, generator=generator) for _ in range(3))
    i, f = (torch.randn(1, 130, 2, generator=generator) for _ in range(2))
    difference = float((mlstm(q, k, v, i, f) - mlstm(q, k, v, i, f, backend="dense")).abs().max())
    choice = select("auto", q)
    found = f"mLSTM by {choice.name} ({choice.reason}); off its definition by {difference:.0e}"
    return Check("kernels", found, sound=difference < 1e-3)


def _models() -> Check:
    from xlstm_unet.zoo import list_models

    entries = list_models()
    damaged = [f"{entry.name}: {entry.problem}" for entry in entries if entry.problem]
    names = ", ".join(entry.name for entry in entries if not entry.problem) or "none"
    return Check("models", "; ".join((names, *damaged)), sound=not damaged)


def _own_models() -> Check:
    from xlstm_unet.zoo.store import user_models_folder

    folder = user_models_folder()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    writable = os.access(existing, os.W_OK)
    return Check("own models", f"{folder}{'' if writable else ' cannot be written to'}", sound=writable)


def _self_test(device: str) -> Check:
    """Segment a bundled image with the first embedded model, and compare with the truth."""
    from xlstm_unet.images import read_image, read_labels
    from xlstm_unet.measure import score_instances
    from xlstm_unet.samples import SAMPLES
    from xlstm_unet.zoo import list_models, load

    names = [
        e.name for e in list_models() if e.spec and e.origin == "embedded" and e.spec.task == "instances"
    ]
    if not names:
        return Check("self-test", "no embedded model to test with", sound=False)
    sample = SAMPLES[0]
    segmenter = load(names[0], device=device)
    image = read_image(sample.image)
    segmenter(image)
    begin = time.perf_counter()
    result = segmenter(image)
    seconds = time.perf_counter() - begin
    f1 = score_instances(result.labels, read_labels(sample.labels)).f1_50
    found = f"{names[0]} on {result.device}: {result.labels.max()} objects in {seconds:.2f} s, F1 {f1:.2f}"
    return Check("self-test", found, sound=f1 > 0.5)
