"""Corrections on disk."""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from xlstm_unet.errors import CorrectionsError, ImageChangedError, OutputError
from xlstm_unet.learn.corrections_store import CorrectionStore


@pytest.fixture
def store(tmp_path) -> CorrectionStore:
    return CorrectionStore(tmp_path)


@contextmanager
def disk_full(limit: int):
    """No file may grow beyond ``limit`` bytes, as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_is_saved_comes_back(store, spec, corrections):
    accepted = np.zeros(corrections.labels.shape, bool)
    accepted[:20] = True
    one = replace(corrections, accepted=accepted, diameter=12.5)
    entry = store.save(one, "tiny", spec, front='{"layer": 1}')
    found, back = store.load(entry.id)
    assert found.counts == entry.counts
    assert (found.front, found.image, found.diameter) == ('{"layer": 1}', "fluo_small", 12.5)
    for name in ("prediction", "labels", "accepted"):
        assert np.array_equal(getattr(back, name), getattr(one, name)), name
    assert np.array_equal(back.image.array, one.image.array)
    assert back.digest == one.digest
    assert store.find("tiny", one.image).id == entry.id
    assert store.find("other", one.image) is None
    mode = stat.S_IMODE(store.folder.stat().st_mode)
    assert os.name == "nt" or mode == 0o700


def test_an_image_has_one_entry_a_model_and_its_pixels_lie_once(store, spec, corrections):
    first = store.save(corrections, "tiny", spec)
    again = store.save(replace(corrections, labels=np.zeros_like(corrections.labels)), "tiny", spec)
    other = store.save(corrections, "other", spec)
    assert first.id == again.id != other.id
    assert len(store.entries()) == 2
    assert len(files(store.folder / "images")) == 1
    assert store.forget([first.id]) == [first.id]
    assert store.load(other.id)[1].digest == corrections.digest
    store.forget([other.id, "0" * 16])
    assert files(store.folder) == ["lock"]


def test_taking_everything_back_removes_the_entry(store, spec, corrections):
    assert store.save(corrections, "tiny", spec) is not None
    assert store.save(replace(corrections, labels=corrections.prediction), "tiny", spec) is None
    assert store.entries() == []


def test_a_changed_image_is_refused(store, spec, corrections):
    entry = store.save(corrections, "tiny", spec)
    pixels = corrections.image.array.copy()
    pixels[3, 4] += 1
    with pytest.raises(ImageChangedError, match="fluo_small"):
        store.load(entry.id, replace(corrections.image, array=pixels))
    kept = next((store.folder / "images").iterdir())
    np.save(kept, pixels)
    with pytest.raises(CorrectionsError, match="pixels"):
        store.load(entry.id)


@pytest.mark.parametrize("damage", ["cut", "noise", "empty", "pickle"])
def test_a_damaged_entry_is_shown_and_harms_no_other(store, spec, corrections, damage):
    bad = store.save(corrections, "tiny", spec)
    good = store.save(corrections, "other", spec)
    path = store.folder / f"{bad.id}.npz"
    data = path.read_bytes()
    if damage == "pickle":
        np.savez(path, labels=np.array([object()]), allow_pickle=True)
    else:
        changed = {"cut": data[: len(data) // 2], "noise": b"\x93" * len(data), "empty": b""}
        path.write_bytes(changed[damage])
    entries = {entry.id: entry for entry in store.entries()}
    assert "damaged" in entries[bad.id].problem
    assert not entries[good.id].problem
    with pytest.raises(CorrectionsError, match="damaged"):
        store.load(bad.id)
    assert store.load(good.id)[0].model == "other"
    assert store.forget([bad.id]) == [bad.id]


def test_a_missing_image_is_told(store, spec, corrections):
    entry = store.save(corrections, "tiny", spec)
    next((store.folder / "images").iterdir()).unlink()
    with pytest.raises(CorrectionsError, match="damaged"):
        store.load(entry.id)
    assert store.load(entry.id, corrections.image)[0].id == entry.id


def test_a_full_disk_loses_nothing(store, spec, corrections):
    entry = store.save(corrections, "tiny", spec)
    before = files(store.folder)
    noisy = corrections.labels + np.random.default_rng(0).integers(1, 2**30, corrections.labels.shape)
    with disk_full(2000), pytest.raises(OutputError, match="Could not write"):
        store.save(replace(corrections, labels=noisy), "tiny", spec)
    assert files(store.folder) == before
    assert store.load(entry.id)[1].digest == corrections.digest
    with disk_full(2000), pytest.raises(OutputError):
        CorrectionStore(store.folder.parent / "new").save(corrections, "tiny", spec)


def test_several_writers_at_once(store, spec, corrections):
    errors = []

    def save(name: str) -> None:
        try:
            for _ in range(3):
                entry = store.save(corrections, name, spec)
                assert store.load(entry.id)[1].digest == corrections.digest
                store.forget([entry.id])
            store.save(corrections, name, spec)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save, args=[f"model-{n}"]) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(store.entries()) == 3
    for entry in store.entries():
        store.load(entry.id)


def test_a_number_that_leads_elsewhere_is_refused(store):
    for number in ("../../etc/passwd", "", "0" * 15, "G" * 16):
        with pytest.raises(CorrectionsError, match="16 hexadecimal"):
            store.load(number)
        with pytest.raises(CorrectionsError, match="16 hexadecimal"):
            store.forget([number])
