"""Corrections, fine-tuning and versions through a real worker."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from xlstm_unet.errors import (
    CancelledError,
    CorrectionsError,
    ImageChangedError,
    ModelError,
    VersionNotFoundError,
)
from xlstm_unet.worker.errors import WorkerCrashedError


def arrays(corrections, **more):
    return {
        "image": corrections.image.array,
        "prediction": corrections.prediction,
        "labels": corrections.labels,
        **more,
    }


def test_correct_finetune_keep_and_undo(worker, corrections):
    def ask(method, params=None, arrays=None, **more):
        return worker.request(method, params, arrays, **more).result(300)

    mine = arrays(corrections)
    without_image = {name: array for name, array in mine.items() if name != "image"}
    seen = ask("preview_corrections", {"model": "tiny"}, without_image)
    assert seen.values["counts"]["merged"] == 0
    assert seen.values["counts"]["split"] == 2
    assert set(np.unique(seen.arrays["states"])) == {0, 1}

    saved = ask("save_corrections", {"model": "tiny", "name": "mine", "front": "{}"}, mine).values
    assert saved["saved"]
    assert saved["counts"] == seen.values["counts"]
    listed = ask("list_corrections", {"model": "tiny"}).values["corrections"]
    assert [entry["id"] for entry in listed] == [saved["id"]]
    found = ask("load_corrections", {"model": "tiny"}, {"image": mine["image"]})
    assert found.values["id"] == saved["id"]
    assert np.array_equal(found.arrays["labels"], corrections.labels)
    assert np.array_equal(found.arrays["prediction"], corrections.prediction)

    events = []
    tuned = ask("finetune", {"model": "tiny", "steps": 4, "device": "cpu"}, on_progress=events.append).values
    kinds = [event.values["event"] for event in events if event.values]
    assert kinds.count("step") >= 3
    assert kinds[-1] == "scores"
    assert tuned["pending"]
    assert tuned["steps"] == 4
    assert tuned["corrections"][0]["id"] == saved["id"]
    shown = ask("segment", {"model": tuned["folder"], "device": "cpu"}, {"image": mine["image"]})
    assert shown.arrays["labels"].shape == mine["labels"].shape

    kept = ask("keep_version", {"version": tuned["version"], "name": "my-nuclei", "force": True}).values
    assert (kept["number"], kept["parent"], kept["model"]) == (1, 0, "my-nuclei")
    names = {model["name"] for model in ask("list_models").values["models"]}
    assert {"tiny", "my-nuclei"} <= names
    card = ask("describe_model", {"model": "my-nuclei"}).values["card"]
    assert "Fine-tuned from `tiny`" in card
    assert "mine" not in card

    undone = ask("undo_version", {"model": "my-nuclei"}).values
    assert undone["current"] == 0
    used = ask("use_version", {"model": "my-nuclei", "version": 1}).values
    assert used["current"] == 1
    gone = ask("forget_corrections", {"ids": [saved["id"]]}).values
    assert gone["forgotten"] == [saved["id"]]
    assert {version["number"] for version in gone["versions"]} == {1}
    model = ask("list_versions", {"model": "my-nuclei"}).values["models"][0]
    assert model["versions"][1]["corrections"][0]["forgotten"]


def test_stop_keeps_the_best_and_cancel_leaves_nothing(worker, corrections):
    mine = arrays(corrections)
    worker.request("save_corrections", {"model": "tiny"}, mine).result(120)
    started = []

    def note(step):
        if step.values.get("event") == "step":
            started.append(time.monotonic())

    def begin():
        started.clear()
        job = worker.request("finetune", {"model": "tiny", "steps": 100_000, "device": "cpu"}, None, note)
        while len(started) < 3:
            time.sleep(0.01)
        return job

    job = begin()
    assert worker.request("stop_finetune").result(60).values == {"stopped": True}
    tuned = job.result(120).values
    assert 3 <= tuned["steps"] < 100_000
    assert worker.request("discard_version", {"version": tuned["version"]}).result(60).values["discarded"]
    job = begin()
    pid = worker.pid
    asked = time.monotonic()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(60)
    assert time.monotonic() - asked < 5
    assert worker.pid == pid, "the worker had to be killed"
    assert worker.request("list_versions").result(60).values["models"] == []


def test_what_is_refused(worker, corrections, nuclei):
    mine = arrays(corrections)

    def refused(kind, method, params, arrays=None):
        with pytest.raises(kind) as caught:
            worker.request(method, params, arrays).result(120)
        return caught.value

    refused(CorrectionsError, "finetune", {"model": "tiny"})
    refused(CorrectionsError, "save_corrections", {"model": "tiny"}, mine | {"labels": mine["labels"][1:]})
    saved = worker.request("save_corrections", {"model": "tiny"}, mine).result(60).values
    changed = mine["image"].copy()
    changed[0, 0] += 1
    refused(ImageChangedError, "load_corrections", {"id": saved["id"]}, {"image": changed})
    refused(CorrectionsError, "load_corrections", {"model": "tiny"}, {"image": changed})
    refused(VersionNotFoundError, "keep_version", {"version": "0" * 16})
    refused(VersionNotFoundError, "undo_version", {"model": "tiny"})
    none = worker.request(
        "save_corrections", {"model": "tiny"}, mine | {"labels": mine["prediction"]}
    ).result(60)
    assert not none.values["saved"]
    assert worker.request("list_corrections").result(60).values["corrections"] == []


def test_corrected_objects_come_back_verbatim(worker, corrections):
    mine = arrays(corrections)
    states = worker.request(
        "preview_corrections",
        {"model": "tiny"},
        {name: mine[name] for name in ("prediction", "labels")},
    ).result(60)
    keep = {"keep_labels": mine["labels"], "keep_states": states.arrays["states"]}
    reply = worker.request(
        "segment", {"model": "tiny", "device": "cpu"}, {"image": mine["image"], **keep}
    ).result(120)
    settled = (states.arrays["states"] > 0) & (mine["labels"] > 0)
    assert np.array_equal(reply.arrays["labels"][settled], mine["labels"][settled])
    assert reply.values["kept"] == len(np.unique(mine["labels"][settled]))


def test_a_killed_worker_loses_nothing_that_was_saved(worker, corrections):
    saved = worker.request("save_corrections", {"model": "tiny"}, arrays(corrections)).result(120).values
    started = []
    job = worker.request("finetune", {"model": "tiny", "steps": 100_000}, None, started.append)
    while not any(step.values for step in started):
        time.sleep(0.01)
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashedError):
        job.result(60)
    listed = worker.request("list_corrections").result(120).values["corrections"]
    assert [entry["id"] for entry in listed] == [saved["id"]]
    assert worker.request("list_versions").result(60).values["models"] == []
    again = worker.request("finetune", {"model": "tiny", "steps": 1, "device": "cpu"}).result(120).values
    assert again["pending"]


def test_two_windows_finetune_the_same_model(worker, second_worker, corrections):
    both = (worker, second_worker)
    worker.request("save_corrections", {"model": "tiny"}, arrays(corrections)).result(120)
    jobs = [one.request("finetune", {"model": "tiny", "steps": 2, "device": "cpu"}) for one in both]
    tuned = [job.result(200).values for job in jobs]
    keeping = [
        one.request("keep_version", {"version": version["version"], "force": True})
        for one, version in zip(both, tuned, strict=True)
    ]
    kept = [job.result(60).values for job in keeping]
    assert sorted(version["number"] for version in kept) == [1, 2]
    (model,) = worker.request("list_versions").result(60).values["models"]
    assert (model["name"], model["current"], len(model["versions"])) == ("tiny-tuned", 2, 3)


def test_bundles_travel_and_new_classes_are_made(worker, own_home):
    files = worker.request("get_bundle", {"model": "tiny"}).result(60).arrays
    assert {"model.json", "model.safetensors", "replay.npz"} <= set(files)
    put = worker.request("put_bundle", {"name": "copy"}, files).result(60).values
    assert put["name"] == "copy"
    assert worker.request("put_bundle", {"name": "copy"}, files).result(60).values == put
    broken = files | {"model.safetensors": files["model.safetensors"][:-9]}
    for name, bad, words in (("copy", broken, "already"), ("other", broken, "safetensors")):
        with pytest.raises(ModelError, match=words):
            worker.request("put_bundle", {"name": name}, bad).result(60)
    assert not (own_home / "models" / "other").exists()
    with pytest.raises(ModelError, match="single objects"):
        worker.request(
            "new_model", {"model": "tiny", "name": "more", "labels": [{"name": "vacuole"}]}
        ).result(60)
