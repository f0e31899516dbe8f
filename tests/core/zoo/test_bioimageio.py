"""bioimage.io packages: what they say, that the trace is faithful, and that bioimageio.core agrees."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xlstm_unet.errors import ModelError
from xlstm_unet.images.prepare import fit_normalisation
from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec, Normalisation
from xlstm_unet.zoo import read_bundle, write_bundle
from xlstm_unet.zoo.bioimageio import export_bioimageio
from xlstm_unet.zoo.store import find_model

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated:DeprecationWarning")

CORE = Path(
    os.environ.get("BIOIMAGEIO_PYTHON", Path(__file__).resolve().parents[3] / ".venv/bioimageio/bin/python")
)
"""A Python that has bioimageio.core; `make test-all` sets it up in an environment of its own."""

VALIDATE = """
import json, sys
from bioimageio.core import test_model
summary = test_model(sys.argv[1], weight_format="torchscript", devices=["cpu"])
print(json.dumps({
    "status": summary.status,
    "details": [[detail.name, detail.status] for detail in summary.details],
    "errors": [error.msg for detail in summary.details for error in detail.errors],
}))
"""


def unpacked(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    return json.loads(files["rdf.yaml"]), files


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec, network: Network) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    write_bundle(folder, spec, network, card="# tiny\n\n## Scores\n\nNone.\n", licence="CC0\n")
    return export_bioimageio(folder, folder.parent / "tiny.zip", authors=["A. Uthor"])


def test_what_it_says(package: Path) -> None:
    description, files = unpacked(package)
    assert description["type"] == "model"
    assert description["authors"] == [{"name": "A. Uthor"}]
    weights = description["weights"]["torchscript"]
    assert hashlib.sha256(files["weights.pt"]).hexdigest() == weights["sha256"]
    axes = description["inputs"][0]["axes"]
    assert [axis["type"] for axis in axes] == ["batch", "channel", "space", "space"]
    assert [axis["size"] for axis in axes[2:]] == [64, 64]
    assert [step["id"] for step in description["inputs"][0]["preprocessing"]] == ["scale_range", "clip"]
    assert description["outputs"][0]["axes"][1]["channel_names"] == ["probability", "distance"]
    assert "## Validation" in files["README.md"].decode()


def test_the_trace_runs_without_this_package_and_gives_the_same(package: Path, spec: ModelSpec) -> None:
    _, files = unpacked(package)
    traced = torch.jit.load(io.BytesIO(files["weights.pt"]))  # type: ignore[no-untyped-call]
    assert "xlstm_kernels::" not in str(traced.inlined_graph)
    network = read_bundle(package.with_suffix("")).build()
    for seed in range(3):
        image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) * (1 + 3 * seed)
        with torch.inference_mode():
            logits, maps = network(image), traced(image)
        assert torch.allclose(maps[:, 0], 1 - torch.softmax(logits[:, :3], 1)[:, 0], atol=1e-5)
        assert torch.allclose(maps[:, 1], logits[:, 3].clamp(0, 1), atol=1e-5)


def test_the_test_output_is_what_our_own_preparation_gives(package: Path, spec: ModelSpec) -> None:
    _, files = unpacked(package)
    image = np.load(io.BytesIO(files["test_input.npy"]))
    expected = np.load(io.BytesIO(files["test_output.npy"]))
    normalised = fit_normalisation(image[0], spec.normalisation)(image[0])[None]
    traced = torch.jit.load(io.BytesIO(files["weights.pt"]))  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        assert np.allclose(traced(torch.from_numpy(normalised)).numpy(), expected, atol=1e-6)


def test_what_the_format_cannot_say(tmp_path: Path, spec: ModelSpec, network: Network) -> None:
    mixed = (Normalisation(scheme="zscore"), Normalisation(scheme="none"), Normalisation(scheme="none"))
    folder = write_bundle(
        tmp_path / "mixed", spec.model_copy(update={"normalisation": mixed}), network, card="", licence=""
    )
    with pytest.raises(ModelError, match="no words for"):
        export_bioimageio(folder, tmp_path / "mixed.zip")
    assert not (tmp_path / "mixed.zip").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not CORE.exists(), reason="bioimageio.core is not installed in .venv/bioimageio")
@pytest.mark.parametrize("model", ["tiny", "nuclei"])
def test_bioimageio_core_agrees(tmp_path: Path, package: Path, model: str) -> None:
    path = package if model == "tiny" else export_bioimageio(find_model(model), tmp_path / f"{model}.zip")
    environment = {**os.environ, "BIOIMAGEIO_CACHE_PATH": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [CORE, "-c", VALIDATE, path], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["status"] == "passed", found
    assert ["Reproduce test outputs from test inputs (torchscript)", "passed"] in found["details"]
