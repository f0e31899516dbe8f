"""Bad input on the command line: a message that names it, exit code 1, nothing half written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

Invoke = Callable[..., Any]
GRAY = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)


def tiff(array: np.ndarray, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        tifffile.imwrite(folder / "bad.tif", array, **options)
        return folder / "bad.tif"

    return write


def damaged(suffix: str, damage: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"bad{suffix}"
        if suffix.startswith(".nii"):
            nibabel.save(nibabel.Nifti1Image(np.stack([GRAY] * 8), np.eye(4)), path)
        elif suffix == ".tif":
            tifffile.imwrite(path, GRAY, compression="zlib")
        else:
            Image.fromarray(GRAY).save(path)
        path.write_bytes(damage(path.read_bytes()))
        return path

    return write


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def huge_png(content: bytes) -> bytes:
    """Say in the header that the picture has 10^10 pixels."""
    header = b"IHDR" + struct.pack(">II", 100_000, 100_000) + content[24:29]
    return content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]


with_nan = GRAY.astype(np.float32)
with_nan[3, 4] = np.nan
with_infinity = GRAY.astype(np.float32)
with_infinity[3, 4] = np.inf

BAD_IMAGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "NaN": (tiff(with_nan), "1 NaN"),
    "infinity": (tiff(with_infinity), "1 infinite"),
    "complex": (tiff(GRAY.astype(np.complex64)), "complex64"),
    "two channels": (
        tiff(np.stack([GRAY, GRAY]), metadata={"axes": "CYX"}, photometric="minisblack"),
        "2 channels",
    ),
    "no bytes": (damaged(".png", lambda content: b""), "empty"),
    "truncated PNG": (damaged(".png", half), "bad"),
    "truncated TIFF": (damaged(".tif", half), "bad"),
    "truncated JPEG": (damaged(".jpg", half), "bad"),
    "truncated NIfTI": (damaged(".nii.gz", half), "bad"),
    "no image at all": (damaged(".png", lambda content: b"GIF89a" * 20), "not a PNG"),
    "huge": (damaged(".png", huge_png), "bad"),
    "no such file": (lambda folder: folder / "bad.tif", "no such file"),
}


@pytest.mark.parametrize(("make", "message"), BAD_IMAGES.values(), ids=BAD_IMAGES.keys())
def test_bad_images(
    invoke: Invoke, cells: Path, tmp_path: Path, make: Callable[[Path], Path], message: str
) -> None:
    path = make(tmp_path)
    done = invoke("segment", path, "--model", cells, "--output", tmp_path / "out", "--measure", "--json")
    assert done.exit_code == 1
    report = json.loads(done.stdout)
    error = report["error"] if "error" in report else report["images"][0]["error"]
    assert error["code"] == "image"
    assert message in error["message"]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "array",
    [np.zeros((1, 1), np.uint8), np.full((30, 20), 7, np.uint16), np.zeros((1, 300), np.float32)],
    ids=["one pixel", "constant", "one row"],
)
def test_images_with_nothing_in_them(invoke: Invoke, cells: Path, tmp_path: Path, array: np.ndarray) -> None:
    tifffile.imwrite(tmp_path / "plain.tif", array)
    done = invoke("segment", tmp_path / "plain.tif", "--model", cells, "--output", tmp_path, "--measure")
    assert done.exit_code == 0, done.stderr
    assert tifffile.imread(tmp_path / "plain_labels.tif").shape == array.shape
    assert (tmp_path / "plain_objects.csv").read_text().startswith("label,")


def test_wrong_dimension(invoke: Invoke, parts: Path, image: Path, tmp_path: Path) -> None:
    done = invoke("segment", image, "--model", parts, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "3D" in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("entries", [[], ["notes.txt"]], ids=["empty", "no images"])
def test_folder_without_images(invoke: Invoke, cells: Path, tmp_path: Path, entries: list[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in entries:
        (folder / name).write_text("x")
    done = invoke("segment", folder, "--model", cells, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert f"{folder}: no image among {len(entries)} entries" in done.stderr


def test_no_such_model(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    shutil.copytree(cells, tmp_path / "home" / "models" / "cells")
    done = invoke("segment", image, "--model", "cell", "--output", tmp_path / "out", "--json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "model-not-found"
    assert "cells" in error["message"]
    assert error["hint"] == "Did you mean 'cells'?"


def truncate(path: Path) -> None:
    path.write_bytes(half(path.read_bytes()))


def unknown_field(path: Path) -> None:
    fields = json.loads(path.read_text())
    path.write_text(json.dumps(fields | {"surprise": 1}))


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("model.safetensors", truncate, "model.safetensors"),
        ("model.json", truncate, "not valid JSON"),
        ("model.json", unknown_field, "surprise"),
        ("model.safetensors", Path.unlink, "has no model.safetensors"),
    ],
    ids=["truncated weights", "truncated specification", "unknown field", "no weights"],
)
def test_damaged_models(
    invoke: Invoke,
    cells: Path,
    image: Path,
    tmp_path: Path,
    name: str,
    damage: Callable[..., Any],
    message: str,
) -> None:
    model = shutil.copytree(cells, tmp_path / "model")
    damage(model / name)
    done = invoke("segment", image, "--model", model, "--output", tmp_path / "out", "--json")
    assert done.exit_code == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "bundle"
    assert message in error["message"]


def test_output_that_is_a_file(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    done = invoke("segment", image, "--model", cells, "--output", tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert json.loads(done.stdout)["images"][0]["error"]["code"] == "output"
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user who is not root")
def test_output_that_cannot_be_written(invoke: Invoke, cells: Path, image: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    done = invoke("segment", image, "--model", cells, "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert "Cannot write to" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs the proc file system")
def test_output_on_a_read_only_file_system(invoke: Invoke, cells: Path, image: Path) -> None:
    done = invoke("segment", image, "--model", cells, "--output", "/proc/xlstm-unet")
    assert done.exit_code == 1
    assert "Cannot write to /proc/xlstm-unet" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file sizes")
def test_disk_full_keeps_earlier_results(run: Any, cells: Path, image: Path, tmp_path: Path) -> None:
    earlier = tmp_path / "fluo_small_labels.tif"
    earlier.write_bytes(b"earlier result")
    done = run(
        *("segment", image, "--model", cells, "--output", tmp_path, "--json"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert done.returncode == 1, done.stderr
    assert json.loads(done.stdout)["images"][0]["error"]["code"] == "output"
    assert "Could not write" in done.stderr
    assert earlier.read_bytes() == b"earlier result"
    assert [path.name for path in tmp_path.iterdir()] == [earlier.name]
