"""Models as zips: the same bytes every time, and nothing hostile comes out of one."""

from __future__ import annotations

import io
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from xlstm_unet.errors import BundleError, ModelError
from xlstm_unet.zoo import load_model, read_bundle
from xlstm_unet.zoo.archive import export_model, import_archive, import_folder

Change = Callable[[dict[str, bytes]], object]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "models"


@pytest.fixture
def exported(bundle_folder: Path, tmp_path: Path) -> Path:
    return export_model(bundle_folder, tmp_path / "tiny.zip")


def test_there_and_back(home: Path, exported: Path, bundle_folder: Path) -> None:
    folder = import_archive(exported)
    assert folder == home / "tiny"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in bundle_folder.iterdir()
    }
    assert load_model("tiny").spec.name == "tiny"
    with pytest.raises(ModelError, match="already"):
        import_archive(exported)
    assert import_archive(exported, "second") == home / "second"
    assert import_folder(bundle_folder, "third") == home / "third"


def test_the_same_model_gives_the_same_bytes(exported: Path, bundle_folder: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(bundle_folder, tmp_path / "later"))
    assert export_model(again, tmp_path / "again.zip").read_bytes() == exported.read_bytes()


def test_replay_can_stay_at_home(home: Path, tmp_path: Path) -> None:
    from xlstm_unet.zoo.store import find_model

    nuclei = find_model("nuclei")
    with_it = zipfile.ZipFile(export_model(nuclei, tmp_path / "a.zip")).namelist()
    without = zipfile.ZipFile(export_model(nuclei, tmp_path / "b.zip", replay=False)).namelist()
    assert set(with_it) - set(without) == {"nuclei/replay.npz"}
    assert read_bundle(import_archive(tmp_path / "b.zip", "other")).read_replay() is None


def packed(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


HOSTILE: dict[str, tuple[Change, str]] = {
    "traversal": (lambda f: f.update({"../../evil.json": b"x"}), "points out of the zip"),
    "absolute": (lambda f: f.update({"/etc/evil": b"x"}), "points out of the zip"),
    "windows path": (lambda f: f.update({"C:evil": b"x"}), "points out of the zip"),
    "backslash": (lambda f: f.update({"..\\evil": b"x"}), "points out of the zip"),
    "bomb": (lambda f: f.update({"tiny/README.md": b"0" * 2**20 + b"0"}), "expected at most 1048576"),
    "bomb in weights": (
        lambda f: f.update({"tiny/model.safetensors": bytes(2**26)}),
        "unpacks to 67108864 from",
    ),
    "two models": (lambda f: f.update({"other/model.json": b"{}"}), r"holds model\.json twice"),
    "two folders": (lambda f: f.update({"other/replay.npz": b"x"}), "in 2 folders"),
    "no weights": (lambda f: f.pop("tiny/model.safetensors"), r"has no model\.safetensors"),
    "many entries": (
        lambda f: f.update({f"tiny/{i}": b"" for i in range(100)}),
        "entries, expected at most 64",
    ),
    "endless directory": (lambda f: f.update({f"{i:0>1000}": b"" for i in range(80)}), "has a directory of"),
    "hostile specification": (
        lambda f: f.update({"tiny/model.json": b'{"name": "../x"}'}),
        "cannot be a model's",
    ),
    "name no text": (lambda f: f.update({"tiny/model.json": b'{"name": {"a": 1}}'}), "cannot be a model's"),
    "damaged weights": (lambda f: f.update({"tiny/model.safetensors": b"x" * 100}), "cannot be imported"),
    "pickle as replay": (lambda f: f.update({"tiny/replay.npz": b"cos\nsystem\n"}), "cannot be imported"),
}


@pytest.mark.parametrize(("change", "message"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_zips(home: Path, exported: Path, change: Change, message: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(exported) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    change(files)
    exported.write_bytes(packed(files))
    before = set(tmp_path.rglob("*"))
    with pytest.raises((BundleError, ModelError), match=message):
        import_archive(exported)
    new = {path for path in set(tmp_path.rglob("*")) - before if path.is_file() and path.suffix != ".lock"}
    assert not new
    assert not (home / "tiny").exists()


def test_links_in_a_zip(home: Path, exported: Path) -> None:
    with zipfile.ZipFile(exported, "a") as archive:
        link = zipfile.ZipInfo("tiny/LICENSE2")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="is a link"):
        import_archive(exported)


def test_an_entry_that_lies_about_its_size(home: Path, bundle_folder: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in bundle_folder.iterdir()}
    content = packed({**files, "README.md": b"0" * 2**24})
    size = struct.pack("<I", 2**24)
    path = tmp_path / "lie.zip"
    path.write_bytes(content.replace(size, struct.pack("<I", 1000)))
    with pytest.raises(BundleError, match=r"more than the 1000 bytes told|damaged"):
        import_archive(path)
    assert not (home / "tiny").exists()


@pytest.mark.parametrize("content", [b"", b"PK", b"hello" * 100, b"PK\5\6" + bytes(18)])
def test_what_is_no_zip(home: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(BundleError):
        import_archive(tmp_path / "x.zip")
    with pytest.raises(BundleError, match="There is no"):
        import_archive(tmp_path / "nothing.zip")


def test_zips_made_by_other_programs(home: Path, bundle_folder: Path, tmp_path: Path) -> None:
    """Files at the top, or in a folder with others beside them, are found."""
    files = {path.name: path.read_bytes() for path in bundle_folder.iterdir()}
    extra = {"__MACOSX/x": b"", "notes.txt": b"hello", "deep/er/model.json": b"{}"}
    (tmp_path / "a.zip").write_bytes(packed({**files, **extra}))
    (tmp_path / "b.zip").write_bytes(packed({f"my model/{name}": text for name, text in files.items()}))
    for number, name in enumerate(("a.zip", "b.zip")):
        folder = import_archive(tmp_path / name, f"copy{number}")
        assert json.loads((folder / "model.json").read_text())["name"] == "tiny"
        assert not (folder / "notes.txt").exists()
