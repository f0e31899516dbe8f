"""``train``: a bundle from images with labels; cancelled and resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from xlstm_unet.zoo import read_bundle

Invoke = Callable[..., Any]

CONFIG = """
data_licence = "CC0-1.0 (BBBC038)"

[model]
name = "any"
dimension = 2
input_channels = 3
accepts_gray = true
task = "instances"
labels = [{ value = 1, name = "nucleus" }]
normalisation = [{ scheme = "percentile" }]
patch_size = [32, 32]

[model.network]
variant = "bot"
features = [4, 8]
kernels = [[3, 3], [3, 3]]
strides = [[1, 1], [2, 2]]
encoder_blocks = [1, 1]
decoder_blocks = [1]

[sampling]
batch = 2

[optimiser]
steps = 4
warmup = 1

[validation]
interval = 2
max_images = 1
thresholds = [0.5]
seed_heights = [0.15]
min_sizes = [0]
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Corners of two images to train on and of one to validate on."""
    folder = tmp_path_factory.mktemp("training") / "data set"
    for split, names in (("train", ("fluo_small", "hist_pink_he")), ("val", ("hist_purple_on_white",))):
        for kind in ("images", "labels"):
            (folder / split / kind).mkdir(parents=True)
            for name in names:
                with Image.open(data / "nuclei" / kind / f"{name}.png") as picture:
                    picture.crop((0, 0, 96, 96)).save(folder / split / kind / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def trained(run: Any, config: Path, dataset: Path) -> dict[str, Any]:
    """Report of a real process that trained."""
    done = run(
        "train", dataset, "--name", "mine", "--config", config, "--output", config.parent / "run", "--json"
    )
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def test_the_report(trained: dict[str, Any], config: Path) -> None:
    assert trained["model"] == "mine"
    assert trained["folder"] == str(config.parent / "run" / "mine")
    assert trained["steps"] == 4
    assert 0 <= trained["scores"]["score"] <= 1


def test_the_bundle(trained: dict[str, Any]) -> None:
    bundle = read_bundle(trained["folder"])
    assert bundle.spec.name == "mine"
    assert bundle.spec.object_diameter is not None
    assert "2 images of data set" in bundle.card
    assert 'license: "cc0-1.0"' in bundle.card
    assert "BBBC038" in bundle.licence
    replay = bundle.read_replay()
    assert replay is not None
    assert {patch.id for patch in replay.check} == {"hist_purple_on_white"}
    assert {patch.id for patch in replay.train} == {"fluo_small", "hist_pink_he"}


def test_a_new_model_starts_from_another_one(
    invoke: Invoke, trained: dict[str, Any], dataset: Path, tmp_path: Path
) -> None:
    areas = tmp_path / "areas"
    shutil.copytree(dataset, areas)
    for path in areas.glob("*/labels/*.png"):
        with Image.open(path) as picture:
            inside = np.asarray(picture) > 0
        Image.fromarray(inside.astype(np.uint8)).save(path)
    start = ("--from", trained["folder"], "--labels", "tissue", "--steps", "1")
    done = invoke("train", areas, "--name", "new", *start, "--output", tmp_path / "run")
    assert done.exit_code == 0, done.stderr
    bundle = read_bundle(tmp_path / "run" / "new")
    assert bundle.spec.task == "classes"
    assert [label.name for label in bundle.spec.labels] == ["tissue"]
    assert bundle.spec.network == read_bundle(trained["folder"]).spec.network
    assert "started from those of mine" in bundle.card
    assert "started from those of mine" in bundle.licence
    assert "BBBC038" in bundle.licence


def test_a_second_run_in_the_folder_is_refused(
    invoke: Invoke, trained: dict[str, Any], config: Path, dataset: Path
) -> None:
    done = invoke("train", dataset, "--name", "mine", "--config", config, "--output", config.parent / "run")
    assert done.exit_code == 1
    assert "holds a training already" in done.stderr


def test_a_plan_is_shown_kept_and_trained(invoke: Invoke, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("train", dataset, "--name", "planned", "--output", run)
    done = invoke(*options, "--width", "4", "--memory", "0.1", "--network", "dense", "--plan-only")
    assert done.exit_code == 0, done.stderr
    assert "Task: instances" in done.stderr
    assert "Network: dense, features 4, 8" in done.stderr
    assert [path.name for path in run.iterdir()] == ["plan.json"]
    fields = json.loads((run / "plan.json").read_text())
    fields["model"]["patch_size"], fields["sampling"]["batch"] = [64, 64], 2
    (run / "plan.json").write_text(json.dumps(fields))
    done = invoke(*options, "--config", run / "plan.json", "--steps", "2", "--mixer", "none")
    assert done.exit_code == 0, done.stderr
    network = read_bundle(run / "planned").spec.network
    assert (network.variant, network.mixer, network.features[0]) == ("dense", "none", 4)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--name", "x"], 1, "is not a folder"),
        (["--name", "x", "--recipe", "nuclei", "--plan-only"], 2, "--plan-only goes without"),
        (["--name", "x", "--network", "mamba"], 2, "mamba"),
        (["--name", "x", "--recipe", "nuclei", "--config", "c.toml"], 2, "--recipe or --config"),
        (["--name", "x", "--recipe", "nuclei", "--steps", "1", "--minutes", "1"], 2, "--minutes or --steps"),
        (["--name", "../x", "--recipe", "nuclei"], 1, "name is '../x'"),
        (["--name", "x", "--recipe", "nuclei", "--labels", "a,b"], 2, "--labels goes with --from"),
        (["--name", "x", "--from", "nucleii"], 1, "'nuclei'"),
        (["--name", "x", "--recipe", "nucleii"], 1, "nuclei"),
        (["--name", "x", "--config", "missing.toml"], 1, "cannot be read"),
        (["--name", "x", "--recipe", "nuclei"], 1, "is not a folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_options(invoke: Invoke, tmp_path: Path, options: list[str], code: int, message: str) -> None:
    done = invoke("train", tmp_path / "no data", *options, "--output", tmp_path / "run")
    assert done.exit_code == code
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_cancelled_and_resumed(config: Path, dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "xlstm_unet.cli", "train", dataset, "--name", "mine", "--config", config]
    command += ["--output", tmp_path / "run", "--steps", "60"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    best = tmp_path / "run" / "best.pt"
    deadline = time.monotonic() + 60
    while not best.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert not (tmp_path / "run" / "mine").exists()
    assert not list((tmp_path / "run").glob(".partial*"))
    done = subprocess.run(
        [*command, "--resume"], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "run" / "mine").spec.name == "mine"
