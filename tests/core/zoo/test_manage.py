"""Renaming, pinning, removing; damaged notes cost nothing but the history."""

from __future__ import annotations

from pathlib import Path

import pytest

from xlstm_unet.errors import BundleError, ModelError, ModelNotFoundError
from xlstm_unet.zoo import list_models, load_model
from xlstm_unet.zoo.manage import pin_model, remove_model, rename_model
from xlstm_unet.zoo.record import RECORD, Record, read_record, write_record


@pytest.fixture
def home(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(bundle_folder.parents[1]))
    return bundle_folder.parent


def test_rename_takes_the_name_along(home: Path) -> None:
    assert rename_model("tiny", "small") == home / "small"
    assert load_model("small").spec.name == "small"
    with pytest.raises(ModelNotFoundError):
        load_model("tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nuclei", "embedded"),
        ("../x", "cannot be a model's name"),
        ("tiny", "already"),
        (".hidden", "cannot"),
    ],
)
def test_names_that_cannot_be_had(home: Path, name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        rename_model("tiny", name)
    assert load_model("tiny").spec.name == "tiny"


def test_embedded_models_and_folders_elsewhere_stay(home: Path, tmp_path: Path) -> None:
    for change in (remove_model, pin_model, lambda name: rename_model(name, "x")):
        with pytest.raises(ModelError, match="comes with the package"):
            change("nuclei")
    elsewhere = (home / "tiny").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="not in the models folder"):
        remove_model(str(elsewhere))
    assert elsewhere.exists()


def test_pinned_models_are_not_removed(home: Path) -> None:
    assert pin_model("tiny").pinned
    with pytest.raises(ModelError, match="pinned"):
        remove_model("tiny")
    assert not pin_model("tiny", False).pinned
    size = sum(path.stat().st_size for path in (home / "tiny").iterdir())
    assert remove_model("tiny") == size
    assert "tiny" not in {entry.name for entry in list_models()}
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{}x", '{"version": 9}', '{"pinned": "perhaps"}', '{"surprise": 1}'])
def test_a_damaged_note(home: Path, content: str) -> None:
    (home / "tiny" / RECORD).write_text(content)
    with pytest.raises(BundleError):
        read_record(home / "tiny")
    entry = next(entry for entry in list_models() if entry.name == "tiny")
    assert (entry.origin, entry.problem, entry.pinned) == ("own", "", False)
    assert pin_model("tiny").pinned


def test_a_note_is_no_part_of_a_model(home: Path, tmp_path: Path) -> None:
    from xlstm_unet.zoo.archive import export_model, import_archive

    write_record(home / "tiny", Record(pinned=True))
    copy = import_archive(export_model(home / "tiny", tmp_path / "x.zip"), "copy")
    assert not (copy / RECORD).exists()
