"""The tree of versions."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from xlstm_unet.errors import GuardError, ModelError, VersionNotFoundError
from xlstm_unet.learn.finetune import finetune
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.zoo import versions
from xlstm_unet.zoo.bundle import read_bundle
from xlstm_unet.zoo.manage import pin_model, remove_model, rename_model
from xlstm_unet.zoo.store import find_model, list_models


@pytest.fixture(scope="module")
def tuned(spec, network, corrections):
    return finetune(
        spec,
        network,
        [corrections],
        steps=1,
        options=FineTuneOptions(judge=False, batch=1),
        device="cpu",
    )


@pytest.fixture
def pending(own_home, tuned, corrections):
    """Make a pending version of a model."""

    def make(model="tiny", **changes):
        root = versions.root_of(model)
        return versions.add_pending(root, dataclasses.replace(tuned, **changes), [corrections])

    return make


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_keep_undo_and_use(pending, corrections):
    root = content(find_model("tiny"))
    first = pending()
    assert [v["pending"] for v in versions.list_versions()[0]["versions"]] == [True]
    one = versions.keep_version(first.record.version)
    assert one.record.model == "tiny-tuned"
    second = pending("tiny-tuned")
    two = versions.keep_version(second.record.version)
    assert (two.record.number, two.record.parent, two.record.model) == (2, 1, "tiny-tuned")
    assert content(find_model("tiny-tuned")) == content(two.folder)
    versions.undo_version("tiny-tuned")
    assert content(find_model("tiny-tuned")) == content(one.folder)
    versions.undo_version("tiny-tuned")
    assert {
        name: data for name, data in content(find_model("tiny-tuned")).items() if name != "version.json"
    } == root
    with pytest.raises(VersionNotFoundError, match="nothing to undo"):
        versions.undo_version("tiny-tuned")
    versions.use_version("tiny-tuned", 2)
    assert content(find_model("tiny-tuned")) == content(two.folder)
    versions.use_version("tiny-tuned", 1)
    third = versions.keep_version(pending("tiny-tuned").record.version)
    assert (third.record.number, third.record.parent) == (3, 1)
    assert content(find_model("tiny")) == root, "the root was altered"
    (model,) = versions.list_versions("tiny-tuned")
    assert [v["number"] for v in model["versions"]] == [0, 1, 2, 3]
    assert [v["current"] for v in model["versions"]] == [False, False, False, True]
    assert model["current"] == 3


def test_a_version_starts_from_the_root_whatever_is_current(pending):
    versions.keep_version(pending().record.version)
    root = versions.root_of("tiny-tuned")
    assert content(root.folder)["model.safetensors"] == content(find_model("tiny"))["model.safetensors"]
    assert root.name == "tiny"
    with pytest.raises(ModelError, match="not kept"):
        versions.root_of(pending().folder)


def test_weights_and_facts_of_a_version(pending, tuned, corrections):
    kept = versions.keep_version(pending().record.version)
    bundle = read_bundle(kept.folder)
    for name, tensor in tuned.network.state_dict().items():
        assert torch.equal(bundle.weights[name], tensor)
    assert bundle.spec.name == "tiny-tuned"
    assert corrections.digest[:16] in bundle.card
    assert "80% of each weight is what was learnt, 20% the root's" in bundle.card
    assert corrections.image.name not in bundle.card
    assert bundle.read_replay() is not None
    assert kept.record.corrections[0].digest == corrections.digest
    assert kept.record.steps == 1


def test_what_was_refused_needs_force(pending):
    bad = pending(verdict="refuse", message="It forgot too much.")
    with pytest.raises(GuardError, match="forgot"):
        versions.keep_version(bad.record.version)
    assert versions.keep_version(bad.record.version, force=True).current


def test_names_that_cannot_be_had(pending):
    with pytest.raises(ModelError, match="no version of"):
        versions.keep_version(pending().record.version, name="tiny")
    with pytest.raises(ModelError, match="embedded"):
        versions.keep_version(pending().record.version, name="nuclei")
    with pytest.raises(ModelError, match="cannot be a model's name"):
        versions.keep_version(pending().record.version, name="../up")


def test_a_pinned_model_is_not_changed(pending):
    versions.keep_version(pending().record.version)
    pin_model("tiny-tuned")
    with pytest.raises(ModelError, match="pinned"):
        versions.keep_version(pending("tiny-tuned").record.version)
    with pytest.raises(ModelError, match="pinned"):
        versions.use_version("tiny-tuned", 0)


def test_renamed_and_removed_models(pending):
    versions.keep_version(pending().record.version)
    rename_model("tiny-tuned", "renamed")
    versions.undo_version("renamed")
    versions.use_version("renamed", 1)
    assert versions.root_of("renamed").model == "renamed"
    remove_model("renamed")
    assert versions.list_versions() == []
    assert "renamed" not in {model.name for model in list_models()}
    assert [folder.name for folder in versions.versions_folder().iterdir() if folder.is_dir()] == ["pending"]


def test_discarded_versions_are_gone(pending):
    version = pending().record.version
    assert versions.discard_version(version)
    assert not versions.discard_version(version)
    with pytest.raises(VersionNotFoundError, match="no pending version"):
        versions.keep_version(version)


def test_a_damaged_version_harms_no_other(pending):
    kept = versions.keep_version(pending().record.version)
    damaged = pending("tiny-tuned")
    (damaged.folder / "version.json").write_text("{")
    (model,) = versions.list_versions()
    assert [version["number"] for version in model["versions"]] == [0, 1]
    assert not versions.discard_version(damaged.record.version)
    assert content(find_model("tiny-tuned")) == content(kept.folder)
