"""Finding models by name and by folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import xlstm_unet as xu
from xlstm_unet.errors import ModelError, ModelNotFoundError
from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import list_models, load_model, write_bundle
from xlstm_unet.zoo.store import find_model, own_folder, user_models_folder


@pytest.fixture
def home(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """User models folder with the model ``tiny`` in it."""
    monkeypatch.setenv("XLSTM_UNET_HOME", str(bundle_folder.parents[1]))
    return bundle_folder.parent


def test_own_models_are_listed_with_what_they_are(home: Path) -> None:
    assert user_models_folder() == home
    entry = next(entry for entry in list_models() if entry.name == "tiny")
    assert (entry.origin, entry.folder, entry.problem) == ("own", home / "tiny", "")
    assert entry.spec is not None
    assert entry.spec.dimension == 2
    assert entry.size_bytes == sum(path.stat().st_size for path in (home / "tiny").iterdir())


def test_damaged_models_are_listed_with_their_problem(home: Path) -> None:
    (home / "broken").mkdir()
    (home / "broken" / "model.json").write_text("{}")
    entry = next(entry for entry in list_models() if entry.name == "broken")
    assert entry.spec is None
    assert "format_version" in entry.problem
    assert any(entry.name == "tiny" and not entry.problem for entry in list_models())


def test_unfinished_folders_are_not_listed(home: Path) -> None:
    (home / ".partial-abc").mkdir()
    assert ".partial-abc" not in {entry.name for entry in list_models()}


def test_by_name_and_by_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_model("tiny") == home / "tiny"
    assert load_model("tiny").spec == load_model(home / "tiny").spec
    monkeypatch.chdir(home)
    assert load_model("./tiny").spec.name == "tiny"


@pytest.mark.parametrize("name", ["tiyn", "Tiny", "tiny2"])
def test_unknown_name_suggests_the_nearest(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"there are .*tiny.*Did you mean 'tiny'"):
        load_model(name)


@pytest.mark.parametrize("name", ["", ".", "..", "../models/none", "/", "no/such/folder", "a\0b"])
def test_names_that_are_no_models(home: Path, name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        find_model(name)


def test_no_model_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path))
    monkeypatch.setattr("xlstm_unet.zoo.store._EMBEDDED", tmp_path / "none")
    assert list_models() == []
    with pytest.raises(ModelNotFoundError, match="there is none yet"):
        load_model("nuclei")


def test_embedded_models_cannot_be_shadowed(
    home: Path, tmp_path: Path, spec: ModelSpec, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded = write_bundle(tmp_path / "embedded" / "tiny", spec, network, card="the real one", licence="")
    monkeypatch.setattr("xlstm_unet.zoo.store._EMBEDDED", embedded.parent)
    assert load_model("tiny").card == "the real one"
    with pytest.raises(ModelError, match="embedded model"):
        own_folder("tiny")


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "", "x" * 65, "a\nb", "a\n"])
def test_names_that_would_leave_the_folder(home: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be a model's name"):
        own_folder(name)


def test_listing_needs_no_torch() -> None:
    code = "import sys, xlstm_unet.zoo as z; z.list_models(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_load_gives_a_segmenter(home: Path, data: Path) -> None:
    segment = xu.load("tiny", device="cpu")
    image = xu.read_image(data / "nuclei" / "images" / "fluo_small.png").array[:70, :50]
    assert segment(image).labels.shape == (70, 50)
