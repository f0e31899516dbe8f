"""Checkpoints that nnU-Net wrote: read with suspicion, and their tensors under our names."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xlstm_unet.errors import BundleError
from xlstm_unet.nets import Network, ViLLayer
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.untrusted import check_plain_file

MAX_CHECKPOINT_BYTES = 8 * 2**30
"""The largest released network with its optimizer state has about 0.8 GB."""
MAX_PICKLE_BYTES = 64 * 2**20

RENAMING = (
    (r"^module\.", ""),
    (r"^decoder\.encoder\.", "encoder."),
    (r"^encoder\.stem\.", "stem."),
    (r"^encoder\.stages\.(\d+)\.", r"encoder.\1.blocks."),
    (r"^encoder\.xlstm_layers\.(\d+)\.", r"encoder.\1.mixer."),
    (r"^xlstm\.", "encoder.{last}.mixer."),
    (r"^decoder\.stages\.(\d+)\.", r"decoder.\1.blocks."),
    (r"^decoder\.upsample_layers\.(\d+)\.conv\.", r"decoder.\1.project."),
    (r"^decoder\.seg_layers\.(\d+)\.", r"decoder.\1.head."),
    (r"\.conv([12])\.(?:conv|all_modules\.0)\.", r".conv\1."),
    (r"\.conv([12])\.(?:norm|all_modules\.1)\.", r".norm\1."),
    (r"\.vil\.norm\.weight$", ".norm"),
    (r"\.vil\.layer\.learnable_skip$", ".skip"),
    (r"\.vil\.layer\.([qkv])_proj\.weight$", r".\1"),
    (r"\.vil\.layer\.(proj_up|proj_down)\.weight$", r".\1"),
    (r"\.vil\.layer\.conv1d\.conv\.(weight|bias)$", r".conv_\1"),
    (r"\.vil\.layer\.mlstm_cell\.(igate|fgate)\.(weight|bias)$", r".\1_\2"),
    (r"\.vil\.layer\.mlstm_cell\.outnorm\.weight$", ".outnorm"),
)
"""Pattern and replacement, applied in this order: the released names in ours. Several released names may mean
one tensor (the decoder holds the encoder, a block its layers twice)."""


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; tensors stay on disk until they are used.

    Only tensors, numbers, texts, containers and numpy scalars are read: a pickle that names anything else is
    refused before it runs.

    Raises
    ------
    BundleError
        If the file is missing, too large, truncated, or holds something else.
    """
    check_plain_file(path, MAX_CHECKPOINT_BYTES)
    content: dict[str, Any]
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except BundleError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise many types on damaged files
        # The rest of torch's message advises to run the pickle.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {named[1]}" if named else f"{type(error).__name__} while reading"
        raise BundleError(
            f"{path} cannot be read as a checkpoint: {reason}.",
            "It is damaged, or holds more than weights and was refused.",
        ) from error
    for field in ("network_weights", "trainer_name", "init_args"):
        if not isinstance(content, dict) or field not in content:
            raise BundleError(f"{path} has no {field}: it is no checkpoint of nnU-Net.")
    if not isinstance(content["network_weights"], Mapping) or not isinstance(content["init_args"], Mapping):
        raise BundleError(f"{path}: network_weights or init_args is no table by name.")
    return content


def load_released_weights(spec: ModelSpec, released: Mapping[str, Tensor], *, source: str) -> Network:
    """Return the network of ``spec`` with the weights of a released state dict.

    Every tensor of it must be used, be a duplicate of one that is used, or be one of the norms beside the ViL
    layers that the released network never applies; and every weight must be given.

    Parameters
    ----------
    spec
        Model that the weights belong to.
    released
        Tensors by their released names.
    source
        Where they are from, for messages.

    Raises
    ------
    BundleError
        Naming the tensors that do not fit.
    """
    with torch.device("meta"):
        network = Network(spec)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    unused = {
        f"{name}.norm.{part}": torch.Size([module.width])
        for name, module in network.named_modules()
        if isinstance(module, ViLLayer)
        for part in ("weight", "bias")
    }
    found: dict[str, Tensor] = {}
    problems = []
    for name, tensor in released.items():
        ours = rename(name, stages=len(spec.network.features))
        shape = shapes.get(ours, unused.get(ours))
        if shape is None:
            problems.append(f"{name} is unknown")
        elif not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_sparse:
            problems.append(f"{name} is no array of floating-point numbers")
        elif tensor.shape != shape:
            problems.append(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        elif ours in found and not _same(found[ours], tensor):
            problems.append(f"{name} differs from its duplicate")
        elif ours in shapes and ours not in found:
            if not torch.isfinite(tensor).all():
                problems.append(f"{name} has NaN or infinite values")
            found[ours] = tensor
    problems += [f"{name} (our name) is missing" for name in shapes if name not in found]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BundleError(f"{source} does not fit the network: {'; '.join(problems[:5])}{more}.")
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in found.items()}
    network.load_state_dict(copies, assign=True)
    return network.requires_grad_(True).eval()


def rename(name: str, *, stages: int) -> str:
    """Return our name of a released tensor of a network with that many stages."""
    for pattern, replacement in RENAMING:
        name = re.sub(pattern, replacement.replace("{last}", str(stages - 1)), name)
    return name


def _check_archive(path: Path) -> None:
    """Refuse archives that would unpack to more than they are."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{path}: entry {entry.filename[:100]!r} is compressed, which torch never writes."
            )
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise BundleError(
                f"{path}: its pickle has {entry.file_size} bytes, expected at most {MAX_PICKLE_BYTES}."
            )


def _numpy_scalars() -> list[Any]:
    """Return what numpy scalars need, under the names of numpy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "float16", "float32", "float64")]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    shared = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return (shared and one.dtype == other.dtype) or torch.equal(one, other)
