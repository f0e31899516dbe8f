"""Weights files: what is refused before anything is allocated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xlstm_unet.errors import BundleError
from xlstm_unet.zoo.weights import read_weights, write_weights

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "conv.bias": torch.tensor([0.5, -1.0])}
SHAPES = {name: tuple(tensor.shape) for name, tensor in STATE.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_weights(tmp_path / "model.safetensors", STATE)
    return tmp_path / "model.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, Any]], object], extra: bytes = b"") -> None:
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:] + extra)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip(tmp_path: Path, dtype: Any) -> None:
    write_weights(tmp_path / "w", STATE, dtype)
    weights = read_weights(tmp_path / "w", SHAPES)
    assert all(torch.equal(weights[name], STATE[name]) for name in STATE)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


def test_a_plain_safetensors_reader_reads_them(path: Path) -> None:
    from safetensors.torch import load_file

    assert torch.equal(load_file(path)["conv.bias"].float(), STATE["conv.bias"])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_values_that_float16_cannot_hold_are_not_written(tmp_path: Path, value: float) -> None:
    with pytest.raises(BundleError, match=r"conv\.bias has NaN, infinity or values beyond float16"):
        write_weights(tmp_path / "w", {"conv.bias": torch.tensor([value])})


def test_nan_on_disk(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2:] = b"\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="NaN or infinite"):
        read_weights(path, SHAPES)


@pytest.mark.parametrize("length", [0, 7, 8, 20, -1], ids=lambda n: f"first {n} bytes")
def test_truncated(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(BundleError, match=r"truncated|not valid JSON|cut or has more"):
        read_weights(path, SHAPES)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**33, 2**63, 2**64 - 1])
def test_absurd_header_length(path: Path, length: int) -> None:
    path.write_bytes(length.to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(BundleError, match="truncated or not safetensors"):
        read_weights(path, SHAPES)


def test_absurd_header_in_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.write((2**30).to_bytes(8, "little"))
        file.truncate(2**31)
    with pytest.raises(BundleError, match="header of 1073741824 bytes"):
        read_weights(path, SHAPES)


def test_file_beyond_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "sparse.safetensors"
    with path.open("wb") as file:
        file.truncate(2**32 + 1)
    with pytest.raises(BundleError, match="expected at most 4294967296"):
        read_weights(path, SHAPES)


HEADER_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "missing tensor": (lambda h: h.pop("conv.bias"), "1 missing tensors.*conv.bias"),
    "extra tensor": (
        lambda h: h.update(extra={"dtype": "F16", "shape": [0], "data_offsets": [52, 52]}),
        "1 unknown tensors.*extra",
    ),
    "other shape": (
        lambda h: h["conv.weight"].update(shape=[4, 3, 2]),
        "has shape .4, 3, 2., expected .2, 3, 4.",
    ),
    "object dtype": (lambda h: h["conv.weight"].update(dtype="I64"), "has dtype 'I64'"),
    "dtype no text": (lambda h: h["conv.weight"].update(dtype=["F16"]), "has dtype"),
    "wider dtype": (lambda h: h["conv.bias"].update(dtype="F32"), "lies at bytes"),
    "negative offset": (lambda h: h["conv.bias"].update(data_offsets=[-4, 0]), "no sizes"),
    "offset no whole number": (lambda h: h["conv.bias"].update(data_offsets=[0.0, 4.0]), "no sizes"),
    "truth as size": (lambda h: h["conv.bias"].update(shape=[True]), "no sizes"),
    "overlap": (
        lambda h: (
            h["conv.weight"].update(data_offsets=[0, 48]) or h["conv.bias"].update(data_offsets=[44, 48])
        ),
        "lies at bytes",
    ),
    "beyond the file": (lambda h: h["conv.weight"].update(data_offsets=[2**40, 2**40 + 48]), "lies at bytes"),
    "overflow": (lambda h: h["conv.weight"].update(shape=[2**62, 2**62, 4]), "has shape"),
    "unknown field": (lambda h: h["conv.bias"].update(pickle="yes"), "lacks one of .* or has more"),
    "no object": (lambda h: h.update({"conv.bias": 3}), "lacks one of"),
    "metadata": (lambda h: h.update(__metadata__={"a": 1}), "__metadata__"),
}


@pytest.mark.parametrize(("change", "message"), HEADER_DAMAGE.values(), ids=HEADER_DAMAGE.keys())
def test_damaged_header(path: Path, change: Callable[..., object], message: str) -> None:
    rewrite(path, change)
    with pytest.raises(BundleError, match=message):
        read_weights(path, SHAPES)


def test_bytes_after_the_tensors(path: Path) -> None:
    rewrite(path, lambda header: None, extra=b"PK\x03\x04")
    with pytest.raises(BundleError, match="cut or has more"):
        read_weights(path, SHAPES)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200), st.integers(0, 300), st.booleans())
def test_any_bytes_end_in_an_error_or_the_right_shapes(
    tmp_path: Path, noise: bytes, place: int, insert: bool
) -> None:
    write_weights(tmp_path / "w", STATE)
    content = (tmp_path / "w").read_bytes()
    content = content[:place] + noise + content[place if insert else place + len(noise) :]
    (tmp_path / "w").write_bytes(content)
    try:
        weights = read_weights(tmp_path / "w", SHAPES)
    except BundleError:
        return
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == SHAPES
