"""Replay packs."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xlstm_unet.errors import BundleError
from xlstm_unet.learn import Dataset, ReplayPack, ReplayPatch, TrainConfig, make_replay, replay
from xlstm_unet.learn.bank import network_input


@pytest.fixture(scope="module")
def pack(nuclei: Dataset) -> ReplayPack:
    model = TrainConfig.read("nuclei").model
    return make_replay(nuclei.split("train"), nuclei.split("val"), model, licence="CC0-1.0")


def test_a_pack_holds_real_patches_of_both_parts(pack: ReplayPack, nuclei: Dataset) -> None:
    assert {patch.id for patch in pack.train} <= {sample.id for sample in nuclei.split("train")}
    assert [patch.id for patch in pack.check] == [sample.id for sample in nuclei.split("val")]
    assert len(pack.train) >= 4
    for patch in (*pack.train, *pack.check):
        values = np.unique(patch.labels[patch.labels > 0])
        assert values.size
        np.testing.assert_array_equal(values, np.arange(1, values.size + 1))


def test_intensities_are_those_of_the_normalised_image(pack: ReplayPack, nuclei: Dataset) -> None:
    spec = TrainConfig.read("nuclei").model
    sample = next(s for s in nuclei.samples if s.id == pack.check[0].id)
    image = network_input(sample, spec)
    patch = pack.check[0].intensities(3)
    assert patch.shape[0] == 3
    windows = np.lib.stride_tricks.sliding_window_view(image, patch.shape)
    closest = np.abs(windows[..., ::16, ::16] - patch[..., ::16, ::16]).max(axis=(-1, -2, -3))
    assert closest.min() <= (replay.INTENSITY_RANGE[1] - replay.INTENSITY_RANGE[0]) / 255


def test_saved_and_loaded(pack: ReplayPack, tmp_path: Path) -> None:
    pack.save(tmp_path / "replay.npz")
    assert (tmp_path / "replay.npz").stat().st_size < 1_000_000
    loaded = ReplayPack.load(tmp_path / "replay.npz")
    assert loaded.licence == "CC0-1.0"
    for ours, theirs in zip(pack.train + pack.check, loaded.train + loaded.check, strict=True):
        assert (ours.id, ours.modality) == (theirs.id, theirs.modality)
        np.testing.assert_array_equal(ours.image, theirs.image)
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_too_large_a_pack_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1, 1100, 1100), dtype=np.uint8)
    patch = ReplayPatch(noise, np.zeros((1100, 1100), np.uint16), "a", "")
    with pytest.raises(BundleError, match="at most 1000000"):
        ReplayPack((patch,), ()).save(tmp_path / "replay.npz")
    assert not list(tmp_path.iterdir())


def _write(path: Path, **arrays: object) -> Path:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    path.write_bytes(buffer.getvalue())
    return path


def _meta(**fields: object) -> np.ndarray:
    whole = {"version": 1, "licence": "", "train": [], "check": []} | fields
    return np.frombuffer(json.dumps(whole).encode(), np.uint8)


IMAGE, LABELS = np.zeros((1, 4, 4), np.uint8), np.zeros((4, 4), np.uint16)
ROW = [{"id": "a", "modality": ""}]


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"meta": _meta(version=2)},
        {"meta": _meta(train=ROW)},
        {"meta": _meta(train=ROW), "train_000_image": IMAGE, "train_000_labels": LABELS.astype(float)},
        {"meta": _meta(train=ROW), "train_000_image": IMAGE[:, :3], "train_000_labels": LABELS},
        {"meta": _meta(train=[3]), "train_000_image": IMAGE, "train_000_labels": LABELS},
        {"meta": _meta(), "more": IMAGE},
        {"meta": np.array([{}], dtype=object)},
    ],
    ids=["nothing", "version", "missing", "dtype", "shape", "row", "unknown", "pickle"],
)
def test_hostile_packs_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    with pytest.raises(BundleError):
        ReplayPack.load(_write(tmp_path / "replay.npz", **arrays))


def test_damaged_and_swollen_packs_are_refused(tmp_path: Path) -> None:
    path = _write(tmp_path / "replay.npz", meta=_meta())
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BundleError, match="cannot be read"):
        ReplayPack.load(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", bytes(70 << 20))
    with pytest.raises(BundleError, match="unpacks to more"):
        ReplayPack.load(path)
    with pytest.raises(BundleError, match="cannot be read"):
        ReplayPack.load(tmp_path / "none.npz")


def test_header_that_promises_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "replay.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1 << 45,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("meta.npy", header.getvalue() + b"{}")
    with pytest.raises(BundleError, match="holds 2 bytes"):
        ReplayPack.load(path)


def test_every_flipped_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    path = _write(
        tmp_path / "replay.npz", meta=_meta(train=ROW), train_000_image=IMAGE, train_000_labels=LABELS
    )
    whole = path.read_bytes()
    refused = 0
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            pack = ReplayPack.load(path)
        except BundleError:
            refused += 1
        else:
            assert np.array_equal(pack.train[0].image, IMAGE)
    assert refused > len(whole) / 2


def test_volumes_keep_their_intensities(
    volumes: Dataset, tiny_volume_fields: dict[str, Any], tmp_path: Path
) -> None:
    """Z-scores are kept as they are, and a pack has room for several patches of a model of large ones."""
    tiny_volume_fields["model"]["patch_size"] = [160, 160, 160]
    spec = TrainConfig.model_validate(tiny_volume_fields).model
    train, check = volumes.samples
    make_replay([train], [check], spec).save(tmp_path / "replay.npz")
    pack = ReplayPack.load(tmp_path / "replay.npz")
    patch = pack.train[0]
    assert patch.labels.ndim == 3
    assert patch.labels.size <= 2**16
    image = network_input(train, spec)
    low, high = patch.range
    assert low < -1
    assert image.min() - 1e-3 <= low < high <= image.max() + 1e-3
    assert patch.intensities(1).max() == pytest.approx(high, abs=1e-3)
    unknown = replace(train, labels=np.where(train.labels == 2, -1, train.labels))
    assert all(patch.labels.max() == 1 for patch in make_replay([unknown], [check], spec).train)
