"""Any bytes in a model's files end in an error or in a valid model: no crash, no hang, no large allocation.

``make test`` tries some hundred damaged files of each kind, ``make test-all`` 10^5 in all.
"""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from xlstm_unet.errors import BundleError, ModelError
from xlstm_unet.learn.replay import ReplayPack
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import archive
from xlstm_unet.zoo.archive import export_model, import_archive
from xlstm_unet.zoo.bundle import read_spec
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.record import RECORD, read_record
from xlstm_unet.zoo.store import find_model
from xlstm_unet.zoo.weights import read_weights, write_weights

STATE = {"conv.weight": torch.arange(24.0).reshape(2, 3, 4), "conv.bias": torch.tensor([0.5, -1.0])}
SHAPES = {name: tuple(tensor.shape) for name, tensor in STATE.items()}
ALLOWED_MB = 200

NUMBERS = (-1, 0, 1, 2**31, 2**32, 2**53, 2**63, 2**64, 10**30, 1e308, 0.5)
BATCH = 50
"""Damaged files for each seed that hypothesis draws in the long run."""

Check = Callable[[bytes], object]


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Flip bits, cut, overwrite, insert, or swap two pieces, up to four times."""
    steps = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["flip", "cut", "overwrite", "insert", "swap", "number"]),
                st.floats(0, 1, exclude_max=True),
                st.binary(min_size=1, max_size=12),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def apply(content: bytes) -> bytes:
        for kind, place, noise in steps:
            at = int(place * max(1, len(content)))
            if kind == "flip" and content:
                content = content[:at] + bytes([content[at] ^ (1 << (noise[0] % 8))]) + content[at + 1 :]
            elif kind == "cut":
                content = content[:at]
            elif kind == "overwrite":
                content = content[:at] + noise + content[at + len(noise) :]
            elif kind == "insert":
                content = content[:at] + noise + content[at:]
            elif kind == "swap":
                content = content[at:] + content[:at]
            else:  # another number where one stands
                digits = next((i for i in range(at, len(content)) if 48 <= content[i] <= 57), at)
                content = (
                    content[:digits] + str(int.from_bytes(noise, "little")).encode() + content[digits + 1 :]
                )
        return content

    return apply


def quick_damage(random: Random, content: bytes) -> bytes:
    """Damage as `damages` does, without its cost: for the long run."""
    for _ in range(random.randint(1, 4)):
        at = random.randrange(max(1, len(content)))
        noise = random.randbytes(random.randint(1, 12))
        match random.randrange(5):
            case 0 if content:
                content = content[:at] + bytes([content[at] ^ (1 << random.randrange(8))]) + content[at + 1 :]
            case 1:
                content = content[:at]
            case 2:
                content = content[:at] + noise + content[at + len(noise) :]
            case 3:
                content = content[:at] + str(random.choice(NUMBERS)).encode() + content[at + 1 :]
            case _:
                content = content[:at] + noise + content[at:]
    return content


def json_texts() -> st.SearchStrategy[bytes]:
    """JSON of any shape, with the fields that a specification has among its names."""
    names = st.sampled_from([*ModelSpec.model_fields, "variant", "features", "x"]) | st.text(max_size=4)
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    values = st.recursive(
        plain, lambda v: st.lists(v, max_size=4) | st.dictionaries(names, v, max_size=4), max_leaves=12
    )
    return values.map(lambda value: json.dumps(value).encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def originals(folder: Path) -> dict[str, bytes]:
    """One valid file of each kind, as small as can be."""
    write_weights(folder / "w", STATE)
    nuclei = find_model("nuclei")
    pack = ReplayPack.load(nuclei / "replay.npz")
    small = ReplayPack(pack.train[:1], (), pack.licence)
    small.save(folder / "r")
    spec = read_spec(nuclei)
    return {
        "weights": (folder / "w").read_bytes(),
        "spec": spec.model_dump_json().encode(),
        "replay": (folder / "r").read_bytes(),
        "record": b'{"version": 1, "source": null, "files": {}, "pinned": true, "pushed": null}',
        "card": (nuclei / "README.md").read_bytes(),
    }


def checks(folder: Path, spec_only: Path) -> dict[str, Check]:
    def weights(content: bytes) -> None:
        (folder / "w").write_bytes(content)
        found = read_weights(folder / "w", SHAPES)
        assert {name: tuple(tensor.shape) for name, tensor in found.items()} == SHAPES
        assert all(torch.isfinite(tensor).all() for tensor in found.values())

    def spec(content: bytes) -> None:
        (spec_only / "model.json").write_bytes(content)
        assert isinstance(read_spec(spec_only), ModelSpec)

    def replay(content: bytes) -> None:
        (folder / "r").write_bytes(content)
        ReplayPack.load(folder / "r")

    def record(content: bytes) -> None:
        (spec_only / RECORD).write_bytes(content)
        read_record(spec_only)

    def card(content: bytes) -> None:
        parsed = CardText.parse(content.decode("utf-8", "replace"))
        assert isinstance(parsed.licence(), str)
        assert all(isinstance(value, float) for value in parsed.scores().values())
        CardText.parse(str(parsed)).summary()

    return {"weights": weights, "spec": spec, "replay": replay, "record": record, "card": card}


def attempt(check: Check, content: bytes) -> None:
    """Check a file; errors of any other kind fail the test."""
    with suppress(BundleError, ModelError):
        check(content)


def run(count: int, strategy: st.SearchStrategy[Any], test: Callable[[Any], None]) -> int:
    """Try ``count`` examples; return how many there were."""
    tried = 0

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def attempts(value: Any) -> None:
        nonlocal tried
        tried += 1
        test(value)

    attempts()
    return tried


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


COUNTS = {"weights": 45_000, "spec": 25_000, "replay": 8_500, "record": 10_000, "card": 10_000}
"""Damaged files of each kind in the slow run, with `ZIPS` 10^5 in all."""
ZIPS = 1_500


@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files(folder: Path, tmp_path: Path, originals: dict[str, bytes], kind: str) -> None:
    check, original = checks(folder, tmp_path)[kind], originals[kind]
    check(original)
    assert run(120, damages(), lambda damage: attempt(check, damage(original))) >= 100


def test_json_of_any_shape(folder: Path, tmp_path: Path) -> None:
    found = checks(folder, tmp_path)
    run(100, json_texts(), lambda text: (attempt(found["spec"], text), attempt(found["record"], text)))


@pytest.fixture
def zipped(tmp_path: Path, bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, bytes]:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("xlstm_unet.zoo.place.sync", lambda path: None)  # a disk's patience is not tested
    path = export_model(bundle_folder, tmp_path / "tiny.zip")
    return path, path.read_bytes()


def try_zip(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    try:
        folder = import_archive(path, "fuzzed")
    except (BundleError, ModelError):
        return
    read_spec(folder)
    from xlstm_unet.zoo.manage import remove_model

    remove_model("fuzzed")


def test_damaged_zips(zipped: tuple[Path, bytes]) -> None:
    path, content = zipped
    run(40, damages(), lambda damage: try_zip(path, damage(content)))
    assert not (path.parent / "home" / "models" / "fuzzed").exists()
    assert archive.MAX_MEMBERS == 64


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_hundred_thousand(
    folder: Path, tmp_path: Path, originals: dict[str, bytes], zipped: tuple[Path, bytes]
) -> None:
    found, tried = checks(folder, tmp_path), 0
    before = memory_mb()
    path, content = zipped
    found["zip"], originals["zip"] = lambda damaged: try_zip(path, damaged), content
    for kind, count in {**COUNTS, "zip": ZIPS}.items():
        check, original = found[kind], originals[kind]

        def batch(seed: int, check: Check = check, original: bytes = original) -> None:
            random = Random(seed)
            for _ in range(BATCH):
                attempt(check, quick_damage(random, original))

        tried += BATCH * run(count // BATCH, st.integers(0, 2**64), batch)
    print(f"{tried} damaged files; the process grew by {memory_mb() - before:.0f} MB")
    assert tried >= 100_000
    assert memory_mb() - before < ALLOWED_MB
