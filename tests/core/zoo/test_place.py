"""Replacing a folder: whole or not at all, also when the process is killed between any two steps."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from xlstm_unet.errors import BundleError, OutputError
from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import list_models, load_model, read_bundle, write_bundle
from xlstm_unet.zoo.place import atomic_folder, mend

KILLED_BETWEEN = """
import os, pathlib, sys
from xlstm_unet.zoo import place
rename = pathlib.Path.rename
count = 0
def counting(self, target):
    global count
    count += 1
    if count == int(sys.argv[2]):
        os._exit(9)
    return rename(self, target)
pathlib.Path.rename = counting
with place.atomic_folder(pathlib.Path(sys.argv[1])) as partial:
    (partial / "model.json").write_text("new")
"""


@pytest.mark.parametrize("step", [1, 2])
def test_killed_while_replacing(tmp_path: Path, step: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.json").write_text("old")
    environment = {**os.environ, "XLSTM_UNET_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_BETWEEN, str(folder), str(step)], check=False, env=environment
    )
    assert done.returncode == 9
    assert folder.exists() == (step == 1)
    mend(tmp_path)
    assert (folder / "model.json").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "model"]


def test_a_model_that_was_set_aside_is_found(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(bundle_folder.parents[1]))
    for find in (lambda: load_model("tiny"), lambda: read_bundle(bundle_folder), list_models):
        bundle_folder.rename(bundle_folder.with_name(".retired-tiny"))
        find()
        assert bundle_folder.exists()


def test_the_newer_one_stays(bundle_folder: Path) -> None:
    retired = bundle_folder.with_name(".retired-tiny")
    retired.mkdir()
    (retired / "old").touch()
    (bundle_folder.parent / ".partial-bundle-abcd1234").mkdir()
    mend(bundle_folder.parent)
    assert [path.name for path in bundle_folder.parent.iterdir()] == ["tiny"]
    assert not (bundle_folder / "old").exists()


def test_other_hidden_folders_are_left_alone(tmp_path: Path) -> None:
    for name in (".partial-thesis", ".partial-bundle-mine", ".git"):
        (tmp_path / name).mkdir()
    (tmp_path / ".retired-link").symlink_to(tmp_path / ".git")
    mend(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_writers_take_turns(
    tmp_path: Path, spec: ModelSpec, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    errors: list[BaseException] = []

    def write(number: int) -> None:
        try:
            write_bundle(tmp_path / "models" / "m", spec, network, card=f"card {number}", licence="")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert read_bundle(tmp_path / "models" / "m").card.startswith("card ")
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["m"]


def test_what_fails_changes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()

    def refuse() -> None:
        raise BundleError("no")

    with pytest.raises(BundleError), atomic_folder(folder, refuse):
        pass


def test_a_full_disk(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "old").touch()

    def fill() -> None:
        with atomic_folder(folder) as partial:
            (partial / "new").touch()
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"Could not write .*No space left"):
        fill()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (folder / "old").exists()
