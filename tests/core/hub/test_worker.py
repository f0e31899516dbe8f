"""The worker's methods for models, in a real worker process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from xlstm_unet.errors import CancelledError, HubMissingError, ModelError, TooLargeError
from xlstm_unet.progress import Progress
from xlstm_unet.worker import WorkerClient


@pytest.fixture
def worker(hub: Any) -> Iterator[WorkerClient]:
    with WorkerClient() as client:
        yield client


def test_models_through_the_worker(hub: Any, worker: WorkerClient) -> None:
    def ask(method: str, **params: Any) -> Any:
        return worker.request(method, params).result(120).values

    (found,) = ask("search_models")["models"]
    assert (found["repo"], found["installed"], found["published"]) == ("acme/tiny", None, False)
    shown = ask("show_model", model="acme/tiny")
    assert (shown["origin"], shown["licence"], shown["spec"]) == ("hub", "cc0-1.0", None)
    with pytest.raises(TooLargeError):
        ask("get_model", model="acme/tiny", max_bytes=10)
    with pytest.raises(HubMissingError):
        ask("get_model", model="acme/nope")
    steps: list[Progress] = []
    job = worker.request("get_model", {"model": "acme/tiny"}, on_progress=steps.append)
    got = job.result(120).values
    assert (got["name"], got["already"]) == ("tiny", False)
    assert steps[-1].done == steps[-1].total == shown["size_bytes"]
    assert "tiny" in {model["name"] for model in ask("list_models")["models"]}
    fit = ask("check_fit", model="tiny", axes="CYX", shape=[2, 90, 80], diameter=20.0)
    assert not fit["fits"]
    assert fit["findings"][0]["about"] == "channels"
    assert ask("check_fit", model="tiny", axes="YX", shape=[90, 80], diameter=20.0) == {
        "fits": True,
        "findings": [],
    }
    assert ask("pin_model", model="tiny", pinned=True)["pinned"]
    with pytest.raises(ModelError, match="pinned"):
        ask("remove_model", model="tiny")
    ask("pin_model", model="tiny", pinned=False)
    assert ask("rename_model", model="tiny", name="small")["name"] == "small"
    assert ask("remove_model", model="small")["freed_bytes"] > 0


def test_cancel_leaves_the_worker_alive(hub: Any, worker: WorkerClient) -> None:
    worker.request("list_models").result(120)
    pid = worker.request("hello").result(30).values["pid"]
    hub.stalled.add("model.safetensors")
    begun = threading.Event()
    job = worker.request("get_model", {"model": "acme/tiny"}, on_progress=lambda step: begun.set())
    assert begun.wait(60)
    assert worker.request("list_models").result(30).values["models"]  # beside the download
    time.sleep(0.2)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(30)
    assert worker.request("hello").result(30).values["pid"] == pid
