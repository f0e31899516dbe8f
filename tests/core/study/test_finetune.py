"""The study of corrections from end to end, on an untrained model: runs are made, kept and summed up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from xlstm_unet.errors import ConfigError, DatasetError, TrainingError
from xlstm_unet.learn import Dataset, make_replay
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.nets import build_network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.finetune import evaluate_finetune
from xlstm_unet.study.finetune_arms import ARMS as FINE_TUNING_ARMS
from xlstm_unet.study.finetune_config import Protocol, Shift, protocol_names
from xlstm_unet.study.finetune_domain import make_domain, shifted
from xlstm_unet.zoo import write_bundle

ARMS = ("ours", "no-replay", "no-mixing", "background", "scratch", "window", "dense", "dense-all", "half")


@pytest.fixture(scope="module")
def root(spec: ModelSpec, data_set: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    replay = make_replay(data_set.split("train"), data_set.split("val"), spec, licence="CC0-1.0")
    folder = tmp_path_factory.mktemp("root") / "tiny"
    return write_bundle(folder, spec, network, card="Untrained.", licence="CC0 1.0", replay=replay)


@pytest.fixture
def protocol(root: Path, data_set_folder: Path) -> Protocol:
    name = data_set_folder.name
    return Protocol.model_validate(
        {
            "name": "tiny",
            "title": "A tiny study",
            "model": str(root),
            "pool": {"dataset": name, "split": "train"},
            "target": {"dataset": name, "split": "val"},
            "source": {"dataset": name, "split": "val", "max_images": 1},
            "rounds": [{"images": 1, "corrections": 3}, {"images": 1, "corrections": 2}],
            "users": 1,
            "arms": ARMS,
            "steps": 2,
            "dense_images": 1,
        }
    )


def test_runs_are_made_kept_and_summed_up(protocol: Protocol, data_set_folder: Path, tmp_path: Path) -> None:
    result = evaluate_finetune(protocol, data_set_folder.parent, tmp_path, device="cpu")
    first = result["summary"]
    assert set(first) == set(ARMS)
    assert next(iter(first)) == "ours"
    assert [row["corrections"] for row in first["ours"]] == [3, 5]
    assert [row["images"] for row in first["ours"]] == [1, 2]
    for arm in ARMS:
        last = first[arm][-1]
        assert last["users"] == 1
        assert last["steps"] == (1 if arm == "half" else 2)
        assert last["cpu_seconds"] > 0
        assert 0 <= last["after"]["mean"] <= 1
        assert last["after"]["sd"] is None
    shares = {run["arm"]: run["rounds"][-1]["root_share"] for run in result["runs"]}
    assert {arm for arm, share in shares.items() if share == 0} == {"no-mixing", "scratch"}
    assert first["no-replay"][-1]["corrections"] == 5
    assert first["dense-all"][-1]["corrections"] > first["dense"][-1]["corrections"] > 5

    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/*/result.json")}
    assert len(kept) == len(ARMS)
    more = protocol.adapted(arms=("ours", "no-replay"), users=2)
    summary = evaluate_finetune(more, data_set_folder.parent, tmp_path, device="cpu")["summary"]
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "what was run is not run again"
    assert {arm: rows[-1]["users"] for arm, rows in summary.items()} == {
        arm: 2 if arm in more.arms else 1 for arm in ARMS
    }
    assert summary["half"] == first["half"], "all that was run is in the report"
    assert summary["ours"][-1]["after"]["sd"] >= 0
    assert summary["ours"][-1]["against_ours"] == {"mean": 0, "sd": 0}
    after = [summary[arm][-1]["after"]["mean"] for arm in ("no-replay", "ours")]
    assert summary["no-replay"][-1]["against_ours"]["mean"] == pytest.approx(after[0] - after[1])

    text = (tmp_path / "finetune.md").read_text()
    assert "A tiny study" in text
    assert "no-replay: without replay" in text
    written = (tmp_path / "finetune.json").read_text()
    assert json.loads(written, parse_constant=pytest.fail)["summary"].keys() == summary.keys()
    assert (tmp_path / "finetune.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TrainingError, match="another protocol"):
        evaluate_finetune(protocol.adapted(steps=3), data_set_folder.parent, tmp_path, device="cpu")


def test_ours_comes_first(protocol: Protocol, data_set_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no-replay"):
        evaluate_finetune(protocol.adapted(arms=("no-replay",)), data_set_folder.parent, tmp_path)
    with pytest.raises(ConfigError, match="nonsense"):
        evaluate_finetune(protocol.adapted(arms=("ours", "nonsense")), data_set_folder.parent, tmp_path)


def test_arms_are_settings_of_fine_tuning() -> None:
    options = {name: FineTuneOptions(**arm.options) for name, arm in FINE_TUNING_ARMS.items()}
    assert options["ours"] == FineTuneOptions()
    assert options["no-mixing"] == FineTuneOptions(root_share=0.0)
    assert options["scratch"].root_share == 0, "new weights would be part of the result"


def test_what_is_scored_is_never_corrected(protocol: Protocol, data_set_folder: Path) -> None:
    values = protocol.model_dump() | {"target": {"dataset": data_set_folder.name, "split": "train"}}
    with pytest.raises(DatasetError, match="no samples"):
        make_domain(Protocol.model_validate(values), data_set_folder.parent)
    few = protocol.model_dump() | {"rounds": [{"images": 3, "corrections": 2}]}
    with pytest.raises(DatasetError, match="2 images to correct, 3"):
        make_domain(Protocol.model_validate(few), data_set_folder.parent)


def test_shifts(fluorescence: Dataset) -> None:
    sample = next(s for s in fluorescence.samples if s.id == "fluo_small")
    assert shifted(sample, Shift()).image.array.tolist() == sample.image.array.tolist()
    half = shifted(sample, Shift(scale=0.5))
    assert half.labels.shape == (128, 128)
    assert np.unique(half.labels).size > 50
    darker = shifted(sample, Shift(gamma=2.0)).image.array
    assert darker.dtype == sample.image.array.dtype
    assert darker.mean() < sample.image.array.mean()
    assert darker.max() == sample.image.array.max()
    lit = shifted(sample, Shift(bias=1.0, noise=0.1))
    again = shifted(sample, Shift(bias=1.0, noise=0.1))
    np.testing.assert_array_equal(lit.image.array, again.image.array)
    assert np.corrcoef(lit.image.array.ravel(), sample.image.array.ravel())[0, 1] < 0.98


def test_thick_slices(fluorescence: Dataset) -> None:
    plane = fluorescence.samples[0]
    array = plane.image.array if "C" not in plane.image.axes else plane.image.array[0]
    stack = np.stack([array // n for n in (1, 2, 3, 4, 5, 6, 7)])
    image = replace(plane.image, array=stack, axes="ZYX", spacing=(1.0, 1.0, 1.0), unit="mm")
    labels = np.stack([plane.labels + n for n in range(7)])
    thick = shifted(replace(plane, image=image, labels=labels), Shift(thickness=3))
    assert thick.image.spatial_shape == (2, *array.shape)
    assert thick.image.spacing == (3.0, 1.0, 1.0)
    np.testing.assert_allclose(thick.image.array[0], stack[:3].mean(axis=0), atol=0.51)
    np.testing.assert_array_equal(thick.labels[1], labels[4])


def test_the_protocols_of_the_package() -> None:
    assert set(protocol_names()) == {"hard", "mild", "object", "same", "scanner", "thick"}
    for name in protocol_names():
        protocol = Protocol.read(name)
        assert protocol.name == name
        assert protocol.pool.split != "test"
        assert protocol.scored_on("val").target.split == "val"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "not valid TOML"),
        ('name = "a"\nmodel = "nuclei"', "pool"),
        ('name = "a"\nnonsense = 1', "nonsense|pool"),
    ],
)
def test_bad_protocols(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "protocol.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        Protocol.read(path)
    with pytest.raises(ConfigError, match="scanner"):
        Protocol.read(tmp_path / "missing.toml")


def test_steps_or_budget(protocol: Protocol) -> None:
    with pytest.raises(ConfigError, match="both"):
        protocol.adapted(budget=30)
