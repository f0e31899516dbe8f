"""Bundles: written whole, read back the same, and refused when damaged or hostile."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.errors import BundleError, OutputError
from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import read_bundle, write_bundle
from xlstm_unet.zoo.bundle import read_spec


def change_spec(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    change(fields)
    (folder / "model.json").write_text(json.dumps(fields), encoding="utf-8")


def test_round_trip_keeps_the_model(bundle_folder: Path, spec: ModelSpec, network: Network) -> None:
    bundle = read_bundle(bundle_folder)
    assert bundle.spec == spec
    assert bundle.licence == "CC0 1.0\n"
    assert bundle.card.startswith("---\nlicense: ")
    assert sorted(p.name for p in bundle_folder.iterdir()) == [
        "LICENSE",
        "README.md",
        "model.json",
        "model.safetensors",
    ]
    for name, tensor in network.state_dict().items():
        assert bundle.weights[name].dtype == torch.float32
        assert torch.equal(bundle.weights[name], tensor.half().float()), name


def test_built_network_gives_the_same_logits(tmp_path: Path, spec: ModelSpec, network: Network) -> None:
    folder = write_bundle(tmp_path / "full", spec, network, card="", licence="", dtype="float32")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(read_bundle(folder).build()(image), network(image))


def test_training_a_built_network_leaves_the_bundle_alone(bundle_folder: Path) -> None:
    bundle = read_bundle(bundle_folder)
    before = {name: tensor.clone() for name, tensor in bundle.weights.items()}
    with torch.no_grad():
        for parameter in bundle.build().parameters():
            parameter.add_(1)
    assert all(torch.equal(bundle.weights[name], before[name]) for name in before)


def test_float16_halves_the_file(
    bundle_folder: Path, tmp_path: Path, spec: ModelSpec, network: Network
) -> None:
    full = write_bundle(tmp_path / "full", spec, network, card="", licence="", dtype="float32")
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (bundle_folder, full)]
    parameters = sum(p.numel() for p in network.parameters())
    assert sizes[1] - sizes[0] == pytest.approx(2 * parameters, abs=64)


def test_replacing_a_bundle(bundle_folder: Path, spec: ModelSpec, network: Network) -> None:
    write_bundle(bundle_folder, spec, network, card="new", licence="")
    assert read_bundle(bundle_folder).card == "new"
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["tiny"]


def test_weights_that_are_not_finite_are_not_written(
    bundle_folder: Path, spec: ModelSpec, network: Network
) -> None:
    broken = read_bundle(bundle_folder).build()
    with torch.no_grad():
        next(broken.parameters()).view(-1)[0] = 1e6  # beyond float16
    with pytest.raises(BundleError, match="beyond float16"):
        write_bundle(bundle_folder, spec, broken, card="new", licence="")
    assert read_bundle(bundle_folder).card != "new"
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["tiny"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_full_disk_keeps_the_previous_bundle(bundle_folder: Path, spec: ModelSpec, network: Network) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="Could not write"):
            write_bundle(bundle_folder, spec, network, card="new", licence="")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_bundle(bundle_folder).card != "new"
    assert [p.name for p in bundle_folder.parent.iterdir()] == ["tiny"]


def test_other_folders_are_never_replaced(tmp_path: Path, spec: ModelSpec, network: Network) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(BundleError, match="will not be replaced"):
        write_bundle(tmp_path, spec, network, card="", licence="")
    assert (tmp_path / "thesis.txt").exists()


SPEC_DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "unknown field": (lambda f: f.update(surprise=1), "surprise: Extra inputs"),
    "unknown field inside": (lambda f: f["network"].update(surprise=1), "network.surprise: Extra inputs"),
    "missing field": (lambda f: f.pop("task"), "task: Field required"),
    "wrong value": (lambda f: f.update(task="poetry"), "task: .*found 'poetry'"),
    "newer format": (lambda f: f.update(format_version=3), "format_version is 3, this program reads up to 2"),
    "format no number": (lambda f: f.update(format_version="1"), "format_version is '1'"),
    "no format": (lambda f: f.pop("format_version"), "format_version is None"),
    "name with path": (lambda f: f.update(name="../../etc"), "name: "),
    "huge width": (lambda f: f["network"].update(features=[8, 10**9]), "network.features holds 1000000000"),
    "huge depth": (
        lambda f: f["network"].update(encoder_blocks=[1, 10**6]),
        r"network.encoder_blocks.1: .* \(found 1000000\)",
    ),
    "other network": (lambda f: f["network"].update(features=[8, 32]), "has shape"),
    "other variant": (lambda f: f["network"].update(mixer="none"), "unknown tensors"),
}


@pytest.mark.parametrize(("change", "message"), SPEC_DAMAGE.values(), ids=SPEC_DAMAGE.keys())
def test_damaged_specification(bundle_folder: Path, change: Callable[..., object], message: str) -> None:
    change_spec(bundle_folder, change)
    with pytest.raises(BundleError, match=message):
        read_bundle(bundle_folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "holds a list"),
        (b'{"format_version": 1, "format_version": 1}', "duplicate field 'format_version'"),
        (b'{"format_version": NaN}', "NaN is not a JSON number"),
        (b"[" * 100_000, "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        (b" " * (2**20 + 1), "expected at most 1048576"),
    ],
    ids=["empty", "list", "duplicate", "nan", "deep", "utf-16", "huge"],
)
def test_model_json_that_is_none(bundle_folder: Path, content: bytes, message: str) -> None:
    (bundle_folder / "model.json").write_bytes(content)
    with pytest.raises(BundleError, match=message):
        read_spec(bundle_folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors", "README.md", "LICENSE"])
def test_links_are_refused(bundle_folder: Path, tmp_path: Path, name: str) -> None:
    (bundle_folder / name).rename(tmp_path / "elsewhere")
    (bundle_folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="not a plain file"):
        read_bundle(bundle_folder)


@pytest.mark.skipif(sys.platform == "win32", reason="needs named pipes")
def test_a_pipe_does_not_hang(bundle_folder: Path) -> None:
    (bundle_folder / "model.safetensors").unlink()
    os.mkfifo(bundle_folder / "model.safetensors")
    with pytest.raises(BundleError, match="not a plain file"):
        read_bundle(bundle_folder)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_files(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).unlink()
    with pytest.raises(BundleError, match=f"has no {name}"):
        read_bundle(bundle_folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "other.safetensors", "weights.PKL"])
def test_other_weights_are_refused(bundle_folder: Path, name: str) -> None:
    (bundle_folder / name).write_bytes(b"cos\nsystem\n")
    with pytest.raises(BundleError, match="also holds"):
        read_bundle(bundle_folder)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a folder"):
        read_bundle(tmp_path / "nothing")


def test_card_that_is_no_text(bundle_folder: Path) -> None:
    (bundle_folder / "README.md").write_bytes(b"\xff\xff")
    with pytest.raises(BundleError, match="not UTF-8"):
        read_bundle(bundle_folder)


def test_memory_stays_small_for_a_hostile_specification(bundle_folder: Path) -> None:
    """A network of hundreds of gigabytes is refused by its shapes alone."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    change_spec(bundle_folder, lambda f: f["network"].update(features=[8192, 8192], kernels=[[31, 31]] * 2))
    with pytest.raises(BundleError):
        read_bundle(bundle_folder)
    grown_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mb < 100


def test_flipped_bits_never_pass_unnoticed_in_the_header(bundle_folder: Path) -> None:
    """Every single flipped bit of the first bytes is an error, or leaves a header that means the same."""
    path = bundle_folder / "model.safetensors"
    content = path.read_bytes()
    original = read_bundle(bundle_folder).weights
    header_end = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    for bit in random.choice(8 * header_end, size=150, replace=False):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << (bit % 8)
        path.write_bytes(flipped)
        try:
            weights = read_bundle(bundle_folder).weights
        except BundleError:
            continue
        assert weights.keys() == original.keys()
        assert all(weights[name].shape == original[name].shape for name in original)
