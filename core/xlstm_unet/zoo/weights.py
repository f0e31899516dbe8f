"""Weights on disk: safetensors, checked against the network before anything is allocated."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as format_safetensors
from torch import Tensor

from xlstm_unet.errors import BundleError
from xlstm_unet.zoo.untrusted import MAX_WEIGHTS_BYTES, check_plain_file, parse_json_object

StoredType = Literal["float16", "float32"]
Shapes = Mapping[str, tuple[int, ...]]

MAX_HEADER_BYTES = 8 * 2**20
_ITEM_BYTES = {"F16": 2, "BF16": 2, "F32": 4}


class _Entry(NamedTuple):
    shape: tuple[int, ...]
    item_bytes: int
    begin: int
    end: int


def write_weights(path: Path, state: Mapping[str, Tensor], dtype: StoredType = "float16") -> None:
    """Write ``state`` as safetensors.

    Parameters
    ----------
    path
        File to write; not atomic by itself.
    state
        Tensors by name, any floating dtype.
    dtype
        What they are rounded to.

    Raises
    ------
    BundleError
        If a value is not finite, before or after rounding.
    """
    stored = {}
    for name, tensor in state.items():
        rounded = tensor.detach().to("cpu", getattr(torch, dtype)).contiguous().clone()
        if not torch.isfinite(rounded).all():
            raise BundleError(
                f"Tensor {name} has NaN, infinity or values beyond {dtype}.",
                "Training diverged, or the weights need dtype='float32'.",
            )
        stored[name] = rounded
    path.write_bytes(format_safetensors(stored, metadata={"format": "pt"}))


def read_weights(path: Path, shapes: Shapes) -> dict[str, Tensor]:
    """Read safetensors as float32.

    Header, names, shapes and sizes are checked against ``shapes`` and the file size before any
    tensor is read.

    Parameters
    ----------
    path
        The file.
    shapes
        Shape of every tensor that the network has, by name.

    Returns
    -------
    dict
        Finite float32 tensors on the CPU, one for every name in ``shapes``.

    Raises
    ------
    BundleError
        If the file is damaged, too large, or does not fit the network.
    """
    size = check_plain_file(path, MAX_WEIGHTS_BYTES)
    try:
        with path.open("rb") as file:
            prefix = file.read(8)
            header_bytes = _header_length(path, prefix, size)
            header = file.read(header_bytes)
            entries = _parse_header(path, header)
            _check_fits(path, entries, shapes)
            _check_layout(path, entries, size - 8 - header_bytes)
            content = prefix + header + file.read(size - 8 - header_bytes)
    except OSError as error:
        raise BundleError(f"Cannot read {path}: {error.strerror}.") from error
    try:
        stored = parse_safetensors(content)
    except Exception as error:
        raise BundleError(f"{path} is damaged: {error}.") from error
    weights = {name: stored.pop(name).to(torch.float32) for name in shapes}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: tensor {name} has NaN or infinite values.")
    return weights


def _header_length(path: Path, prefix: bytes, size: int) -> int:
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length < 2 or length > min(MAX_HEADER_BYTES, size - 8):
        raise BundleError(
            f"{path} is truncated or not safetensors: header of {length} bytes in a file of {size}."
        )
    return length


def _parse_header(path: Path, header: bytes) -> dict[str, _Entry]:
    fields = parse_json_object(header, f"The header of {path}")
    metadata = fields.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise BundleError(f"{path}: __metadata__ is {json.dumps(metadata)[:60]}, expected texts by name.")
    return {name: _parse_entry(path, name, entry) for name, entry in fields.items()}


def _parse_entry(path: Path, name: str, entry: Any) -> _Entry:
    expected = {"dtype", "shape", "data_offsets"}
    if not isinstance(entry, dict) or set(entry) != expected:
        raise BundleError(f"{path}: tensor {name[:200]!r} lacks one of {sorted(expected)} or has more.")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in _ITEM_BYTES:
        raise BundleError(
            f"{path}: tensor {name[:200]!r} has dtype {entry['dtype']!r}, "
            f"expected one of {', '.join(_ITEM_BYTES)}."
        )
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not (_are_sizes(shape) and _are_sizes(offsets) and len(offsets) == 2):
        raise BundleError(f"{path}: tensor {name[:200]!r} has a shape or offsets that are no sizes.")
    return _Entry(tuple(shape), _ITEM_BYTES[entry["dtype"]], offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**63 for value in values)


def _check_fits(path: Path, entries: Mapping[str, _Entry], shapes: Shapes) -> None:
    missing = [name for name in shapes if name not in entries]
    extra = [name for name in entries if name not in shapes]
    if missing or extra:
        raise BundleError(
            f"{path} does not fit the network in model.json: "
            f"{_count(missing, 'missing')} and {_count(extra, 'unknown')}."
        )
    for name, shape in shapes.items():
        if entries[name].shape != shape:
            raise BundleError(
                f"{path}: tensor {name} has shape {list(entries[name].shape)}, expected {list(shape)}."
            )


def _count(names: list[str], word: str) -> str:
    example = f" (such as {names[0][:200]!r})" if names else ""
    return f"{len(names)} {word} tensors{example}"


def _check_layout(path: Path, entries: Mapping[str, _Entry], available: int) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        size = math.prod(entry.shape) * entry.item_bytes
        if entry.begin != position or entry.end - entry.begin != size:
            raise BundleError(
                f"{path}: tensor {name} lies at bytes {entry.begin} to {entry.end}, "
                f"expected {position} to {position + size}."
            )
        position = entry.end
    if position != available:
        raise BundleError(
            f"{path} has {available} bytes of tensors, expected {position}: it is cut or has more."
        )
