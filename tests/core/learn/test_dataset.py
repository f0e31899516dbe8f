"""Reading data sets."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from xlstm_unet.errors import CancelledError, DatasetError
from xlstm_unet.learn import Dataset, dataset, open_dataset, sources


@pytest.fixture
def folder(data: Path, tmp_path: Path) -> Path:
    """A data set of two folders that may be spoilt."""
    target = tmp_path / "data"
    for part in ("images", "labels"):
        (target / part).mkdir(parents=True)
        for name in ("fluo_small", "hist_purple_on_white"):
            shutil.copy(data / "nuclei" / part / f"{name}.png", target / part)
    return target


def _pack(folder: Path, *, into: Path, index: str, split: str = "train") -> Path:
    into.mkdir()
    (into / "index.csv").write_text(index)
    with zipfile.ZipFile(into / f"{split}.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder))
    return into


INDEX = "id,modality,split,group\nfluo_small,fluo,train,1\nhist_purple_on_white,hist,train,2\n"


def test_folders(nuclei: Dataset, data: Path) -> None:
    assert len(nuclei.samples) == 7
    sample = next(s for s in nuclei.samples if s.id == "hist_pink_he")
    truth = np.asarray(Picture.open(data / "nuclei" / "labels" / "hist_pink_he.png"))
    np.testing.assert_array_equal(sample.labels, truth)
    assert sample.image.channels == 3


def test_without_a_validation_split_one_is_drawn_and_said(data: Path, nuclei: Dataset) -> None:
    assert len(nuclei.split("val")) == 1
    assert "1 training samples (1 of 7 groups)" in nuclei.notes[0]
    again = open_dataset(data / "nuclei", splits=("val",))
    assert [s.id for s in again.samples] == [s.id for s in nuclei.split("val")]


def test_an_index_with_an_archive_reads_the_same(folder: Path, tmp_path: Path) -> None:
    packed = open_dataset(_pack(folder, into=tmp_path / "packed", index=INDEX))
    plain = open_dataset(folder)
    assert [s.modality for s in packed.samples] == ["fluo", "hist"]
    for one, other in zip(packed.samples, plain.samples, strict=True):
        np.testing.assert_array_equal(one.image.array, other.image.array)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_splits_that_are_not_asked_for_may_be_missing(folder: Path, tmp_path: Path) -> None:
    packed = _pack(folder, into=tmp_path / "packed", index=INDEX + "third,fluo,test,3\n")
    assert len(open_dataset(packed, splits=("train", "val")).samples) == 2
    with pytest.raises(DatasetError, match="test has no folder images/"):
        open_dataset(packed)


def test_a_group_is_never_torn_apart(folder: Path, tmp_path: Path) -> None:
    rows = "".join(f"s{i},train,{i // 4}\n" for i in range(16))
    for i in range(16):
        for part in ("images", "labels"):
            shutil.copy(folder / part / "fluo_small.png", folder / part / f"s{i}.png")
    made = open_dataset(_pack(folder, into=tmp_path / "packed", index="id,split,group\n" + rows))
    groups = [{s.group for s in made.split(name)} for name in ("train", "val")]
    assert groups[1]
    assert not groups[0] & groups[1]


def test_nested_folders_and_labels_named_after_images(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "nested"
    for split in ("train", "val"):
        shutil.copytree(folder, root / split)
    (root / "val" / "labels" / "fluo_small.png").rename(root / "val" / "labels" / "fluo_small_labels.png")
    made = open_dataset(root)
    assert [len(made.split(name)) for name in ("train", "val", "test")] == [2, 2, 0]
    assert not made.notes


def test_pixel_size_of_the_index(folder: Path, tmp_path: Path) -> None:
    index = "id,split,pixel_size_um\nfluo_small,train,0.5\nhist_purple_on_white,val,\n"
    (tmp_path / "packed").mkdir()
    shutil.copytree(folder, tmp_path / "packed" / "train")
    shutil.copytree(folder, tmp_path / "packed" / "val")
    (tmp_path / "packed" / "index.csv").write_text(index)
    first, second = open_dataset(tmp_path / "packed").samples
    assert (first.image.spacing, first.image.unit) == ((0.5, 0.5), "µm")
    assert second.image.spacing is None


def _missing_label(folder: Path) -> None:
    (folder / "labels" / "fluo_small.png").unlink()


def _other_shape(folder: Path) -> None:
    Picture.fromarray(np.zeros((5, 6), np.uint16)).save(folder / "labels" / "fluo_small.png")


def _unreadable(folder: Path) -> None:
    (folder / "images" / "fluo_small.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")


def _no_labels(folder: Path) -> None:
    shutil.rmtree(folder / "labels")


def _twins(folder: Path) -> None:
    shutil.copy(folder / "images" / "fluo_small.png", folder / "images" / "fluo_small.tif")


def _one_group(folder: Path) -> None:
    for part in ("images", "labels"):
        (folder / part / "fluo_small.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_missing_label, r"'fluo_small' has no file in labels/, expected fluo_small or fluo_small_labels"),
        (_other_shape, r"'fluo_small': labels are 5x6 and the image is \d+x\d+"),
        (_unreadable, r"'fluo_small'"),
        (_no_labels, r"no folder labels/"),
        (_twins, r"two files for images/fluo_small"),
        (_one_group, r"no validation split and only 1 group"),
    ],
)
def test_spoilt_folders(folder: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(folder)
    with pytest.raises(DatasetError, match=message):
        open_dataset(folder)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("", "has no rows"),
        ("name,split\na,train\n", "no column 'id'"),
        ("id,split\na,dev\n", "line 2: split is 'dev', expected one of train, val, test"),
        ("id,split\nnone,train\nfluo_small,train\n", "'none' has no file in images/"),
        ("id,split,pixel_size_um\nfluo_small,train,-1\n", "expected a positive number"),
        ("id,split\nfluo_small,test\n", "has no training samples"),
    ],
)
def test_spoilt_indices(folder: Path, tmp_path: Path, index: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        open_dataset(_pack(folder, into=tmp_path / "packed", index=index))


@pytest.mark.parametrize(
    "name", ["../evil.png", "/etc/evil.png", "images/../../evil.png", "images\\evil.png"]
)
def test_members_outside_their_folders_are_refused(folder: Path, tmp_path: Path, name: str) -> None:
    packed = _pack(folder, into=tmp_path / "packed", index=INDEX)
    with zipfile.ZipFile(packed / "train.zip", "a") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(DatasetError, match=r"evil\.png"):
        open_dataset(packed)
    assert not list(tmp_path.rglob("evil*"))


def test_bombs_are_refused_before_they_are_unpacked(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = _pack(folder, into=tmp_path / "packed", index=INDEX)
    monkeypatch.setattr(sources, "MAX_FILE_BYTES", 1000)
    with pytest.raises(DatasetError, match="at most 1000 are read"):
        open_dataset(packed)
    monkeypatch.setattr(sources, "MAX_ARCHIVE_BYTES", 10)
    with pytest.raises(DatasetError, match="at most 10 are read"):
        open_dataset(packed)
    monkeypatch.setattr(sources, "MAX_FILES", 2)
    with pytest.raises(DatasetError, match="at most 2 are read"):
        open_dataset(packed)


def test_damaged_archives(folder: Path, tmp_path: Path) -> None:
    packed = _pack(folder, into=tmp_path / "packed", index=INDEX)
    whole = (packed / "train.zip").read_bytes()
    (packed / "train.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match="not a readable zip archive"):
        open_dataset(packed)
    spoilt = bytearray(whole)
    spoilt[200:400] = bytes(200)
    (packed / "train.zip").write_bytes(spoilt)
    with pytest.raises(DatasetError, match="cannot be unpacked"):
        open_dataset(packed)


def test_memory_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "MAX_BYTES", 1000)
    with pytest.raises(DatasetError, match="decodes to more than"):
        open_dataset(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        open_dataset(tmp_path / "none")


def test_reading_can_be_cancelled(folder: Path) -> None:
    with pytest.raises(CancelledError):
        open_dataset(folder, cancel=lambda: True)


def test_fingerprints_tell_data_apart(folder: Path) -> None:
    before = open_dataset(folder).fingerprint()
    assert open_dataset(folder).fingerprint() == before
    labels = np.asarray(Picture.open(folder / "labels" / "fluo_small.png")).copy()
    labels[0, 0] += 1
    Picture.fromarray(labels).save(folder / "labels" / "fluo_small.png")
    assert open_dataset(folder).fingerprint() != before
