"""Run an operation on copies of a data folder, killed at its 1st, 2nd, ... step on the disk, and look at it.

Usage: killed_everywhere.py HOME OPERATION. Prints how many steps there were. Run by test_killed.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from xlstm_unet.errors import VersionNotFoundError
from xlstm_unet.images import Image
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.corrections_store import CorrectionStore
from xlstm_unet.zoo import versions
from xlstm_unet.zoo.bundle import read_bundle, read_spec
from xlstm_unet.zoo.store import find_model, list_models

CHANGES = {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.chmod"}
WRITES = os.O_WRONLY | os.O_RDWR
MODEL = "mine"


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def some_corrections(value: int = 1) -> Corrections:
    pixels = np.arange(900, dtype=np.uint8).reshape(30, 30)
    labels = np.zeros((30, 30), np.int32)
    labels[5:15, 5:15] = value
    return Corrections(Image(pixels, "YX", name="some"), np.zeros_like(labels), labels)


def pending() -> str:
    (folder,) = (versions.versions_folder() / "pending").iterdir()
    return folder.name


def save(home: Path) -> None:
    CorrectionStore(home).save(some_corrections(2), "tiny", read_bundle(find_model("tiny")).spec)


def forget(home: Path) -> None:
    store = CorrectionStore(home)
    store.forget([entry.id for entry in store.entries()])


OPERATIONS = {
    "keep": lambda home: versions.keep_version(pending(), name=MODEL, force=True),
    "keep-first": lambda home: versions.keep_version(pending(), name="another", force=True),
    "discard": lambda home: versions.discard_version(pending()),
    "undo": lambda home: versions.undo_version(MODEL),
    "save": save,
    "forget": forget,
}


def die_at(step: int) -> None:
    count = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal count
        if event in CHANGES or (event == "open" and int(str(arguments[2])) & WRITES):
            count += 1
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def look(home: Path, root: dict[str, bytes], states: list[dict[str, bytes]]) -> None:
    """Whatever happened, everything that is there is whole, and work goes on."""
    assert bytes_of(find_model("tiny")) == root, "the root was altered"
    assert not [entry.problem for entry in list_models() if entry.problem]
    assert bytes_of(find_model(MODEL)) in states, "the current version is no version"
    for model in versions.list_versions():
        for version in model["versions"]:
            read_spec(Path(version["folder"]))
    for entry in CorrectionStore(home).entries():
        assert not entry.problem, entry.problem
        CorrectionStore(home).load(entry.id)
    # And the same again works.
    save(home)
    versions.use_version(MODEL, 0)
    versions.use_version(MODEL, 1)
    assert bytes_of(find_model(MODEL)) == states[1]
    with suppress(ValueError, VersionNotFoundError):  # it had been kept or discarded
        versions.keep_version(pending(), name=MODEL, force=True)
    read_bundle(find_model(MODEL))


def main() -> None:
    source, operation = Path(sys.argv[1]), OPERATIONS[sys.argv[2]]
    step, finished = 0, False
    while not finished:
        step += 1
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder) / "home"
            shutil.copytree(source, home)
            os.environ["XLSTM_UNET_HOME"] = str(home)
            root = bytes_of(find_model("tiny"))
            line = next(m for m in versions.list_versions(MODEL) if m["name"] == MODEL)
            states = [bytes_of(Path(v["folder"])) for v in line["versions"] if not v["pending"]]
            (new,) = (versions.versions_folder() / "pending").iterdir()
            child = os.fork()
            if child == 0:
                die_at(step)
                try:
                    operation(home)
                except BaseException:
                    import traceback

                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            status = os.waitpid(child, 0)[1]
            finished = os.WIFEXITED(status)
            assert not finished or os.WEXITSTATUS(status) == 0, "the operation failed"
            kept = versions.versions_folder() / next(
                iter({p.name for p in versions.versions_folder().iterdir() if (p / "2").is_dir()}), "none"
            )
            if (kept / "2").is_dir():
                states.append(bytes_of(kept / "2"))
            assert new
            look(home, root, states)
    print(step)


if __name__ == "__main__":
    main()
