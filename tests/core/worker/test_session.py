"""The real worker: models, segmenting and decoding through the pipe."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import numpy as np
import pytest

import xlstm_unet as xu
from xlstm_unet.errors import CancelledError, DeviceError, ImageError, ModelError, ModelNotFoundError
from xlstm_unet.worker.errors import HandleError, ProtocolError
from xlstm_unet.worker.server import NICENESS

SETTINGS = {"threshold": 0.4, "seed_height": 0.05, "min_size": 4}


@pytest.fixture(scope="module")
def nuclei(data) -> np.ndarray:
    """A part of a real image, gray."""
    image = xu.read_image(sorted((data / "nuclei" / "images").glob("fluo_small.*"))[0]).array
    return np.ascontiguousarray(image[..., :96, :80][-1] if image.ndim == 3 else image[:96, :80])


@pytest.fixture(scope="module")
def in_process(home, monkeypatch_module):
    """The same model in this process."""
    monkeypatch_module.setenv("XLSTM_UNET_HOME", str(home))
    return xu.load("tiny", device="cpu")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def segmented(real, nuclei):
    """A reply to ``segment`` with kept maps, and its progress."""
    steps = []
    params = {
        "model": "tiny",
        "diameter": 10,
        "keep": True,
        "device": "cpu",
        "spacing": [0.5, 0.5],
        "unit": "µm",
    }
    return real.request("segment", params, {"image": nuclei}, steps.append).result(120), steps


@pytest.mark.skipif(not hasattr(os, "getpriority"), reason="priorities of Unix")
def test_a_worker_gives_way_to_the_window(real):
    pid = real.start()["pid"]
    own = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [int(task) for task in os.listdir(f"/proc/{pid}/task")] if os.path.isdir("/proc") else [pid]
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {min(19, own + NICENESS)}


def test_hello_tells_versions_devices_and_models(real):
    hello = real.start()
    assert hello["version"] == xu.__version__
    assert hello["devices"][-1]["name"] == "cpu"
    models = {model["name"]: model for model in hello["models"]}
    assert models["tiny"]["task"] == "instances"
    assert models["tiny"]["labels"][0]["name"] == "nucleus"
    assert models["tiny"]["problem"] == ""
    assert "model.json" in models["damaged"]["problem"]
    assert {"hello", "segment", "decode", "finetune", "search_models"} <= set(real.hello["methods"])
    assert real.request("list_models").result(10).values["models"] == hello["models"]


def test_command_line_starts_the_same_worker(make_client):
    client = make_client([sys.executable, "-m", "xlstm_unet.cli", "worker"])
    client.start()
    assert client.hello["magic"] == "xlstm-unet-worker"
    assert "segment" in client.hello["methods"]


def test_model_is_described_by_name_and_by_path(real, home):
    named = real.request("describe_model", {"model": "tiny"}).result(10).values
    assert named["card"] == "# A card"
    assert xu.ModelSpec.model_validate(named["spec"]).name == "tiny"
    assert real.request("describe_model", {"model": str(home / "models" / "tiny")}).result(10).values == named


def test_labels_are_those_of_the_same_model_in_process(segmented, in_process, nuclei):
    reply, steps = segmented
    expected = in_process(nuclei, diameter=10)
    assert expected.labels.max() > 3
    np.testing.assert_array_equal(reply.arrays["labels"], expected.labels)
    assert reply.arrays["labels"].dtype == np.int32
    assert reply.values["objects"] == expected.labels.max()
    assert reply.values["axes"] == "YX"
    assert reply.values["diameter"] == 10
    assert reply.values["notes"] == list(expected.notes)
    assert reply.values["device"] == "cpu"
    assert reply.values["decoding"] == expected.decoding.model_dump()
    assert steps
    assert all(0 <= step.done <= step.total for step in steps)


def test_decode_is_that_of_the_same_model_in_process(real, segmented, in_process, nuclei):
    handle = segmented[0].values["handle"]
    reply = real.request("decode", {"handle": handle, **SETTINGS}).result(30)
    expected = in_process(nuclei, diameter=10, keep_maps=True).decode(**SETTINGS)
    np.testing.assert_array_equal(reply.arrays["labels"], expected)
    assert reply.values["objects"] == expected.max()
    unchanged = real.request("decode", {"handle": handle}).result(30)
    np.testing.assert_array_equal(unchanged.arrays["labels"], segmented[0].arrays["labels"])


def test_maps_are_released(real, nuclei):
    params = {"model": "tiny", "diameter": 10, "keep": True}
    handle = real.request("segment", params, {"image": nuclei}).result(60).values["handle"]
    assert real.request("release", {"handle": handle}).result(10).values == {"released": True}
    assert real.request("release", {"handle": handle}).result(10).values == {"released": False}
    with pytest.raises(HandleError, match="Segment the image again"):
        real.request("decode", {"handle": handle}).result(10)


def test_colour_stack_and_region(real, nuclei, in_process):
    colour = np.stack([nuclei, nuclei // 2, 255 - nuclei], axis=-1)
    region = [[10, 74], [20, 80]]
    params = {"model": "tiny", "axes": "YXC", "diameter": 10, "region": region}
    reply = real.request("segment", params, {"image": colour}).result(60)
    image = xu.Image(colour, "YXC")
    expected = in_process(image, diameter=10, region=tuple(slice(*span) for span in region)).labels
    np.testing.assert_array_equal(reply.arrays["labels"], expected)
    assert reply.values["handle"] is None
    stack = np.stack([nuclei, nuclei[::-1]])
    reply = real.request(
        "segment", {"model": "tiny", "axes": "ZYX", "diameter": 10}, {"image": stack}
    ).result(60)
    assert reply.values["axes"] == "ZYX"
    assert reply.arrays["labels"].shape == stack.shape


@pytest.mark.parametrize(
    ("params", "change", "kind", "named"),
    [
        ({"model": "tinny"}, None, ModelNotFoundError, "Did you mean 'tiny'"),
        ({"model": "damaged"}, None, ModelError, "model.json"),
        ({"axes": "YXT"}, None, ImageError, "axes"),
        ({}, lambda image: np.where(image > 50, np.nan, 1.0), ImageError, "NaN"),
        ({}, lambda image: image[:0], ImageError, "empty"),
        ({"diameter": 0}, None, ProtocolError, "diameter"),
        ({"region": [[5, 5], [0, 10]]}, None, ImageError, "region"),
        ({"region": [[-5, 5], [0, 10]]}, None, ProtocolError, "region"),
        ({"affine": [[1, 0, 0, 0]]}, None, ImageError, "affine"),
        ({"device": "abacus"}, None, DeviceError, "abacus"),
        ({"keep_maps": True}, None, ProtocolError, "keep_maps"),
    ],
)
def test_wrong_input_is_told_and_the_worker_goes_on(real, nuclei, params, change, kind, named):
    image = nuclei if change is None else change(nuclei)
    with pytest.raises(kind, match=named):
        real.request("segment", {"model": "tiny", **params}, {"image": image}).result(60)
    assert real.request("list_models").result(10)


def test_cancel_while_segmenting_and_again(real, nuclei, wait_until):
    large = np.tile(nuclei, (24, 24))
    real.request("load_model", {"model": "tiny"}).result(30)
    job = real.request("segment", {"model": "tiny", "diameter": 10}, {"image": large})
    wait_until(lambda: job.progress is not None, 60)
    start = time.monotonic()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(5)
    assert time.monotonic() - start < 1.5
    params = {"model": "tiny", "diameter": 10}
    assert real.request("segment", params, {"image": nuclei}).result(60).values["objects"] > 0


def test_model_that_is_replaced_on_disk_is_loaded_anew(real, home, nuclei, write_model):
    write_model(home, "changing", seed=1)
    params = {"model": "changing", "diameter": 10}
    first = real.request("segment", params, {"image": nuclei}).result(60).arrays["labels"]
    again = real.request("segment", params, {"image": nuclei}).result(60).arrays["labels"]
    write_model(home, "changing", seed=2)
    other = real.request("segment", params, {"image": nuclei}).result(60).arrays["labels"]
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_modules_in_the_working_directory_are_not_imported(tmp_path, home):
    (tmp_path / "torch.py").write_text("raise SystemExit('imported from the working directory')")
    code = "import xlstm_unet.worker.client as c\nwith c.WorkerClient() as w: print(w.start()['version'])"
    result = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.stdout.strip() == xu.__version__, result.stderr


PARENT = """
import sys, threading, time
import numpy as np
from xlstm_unet.worker.client import WorkerClient

client = WorkerClient()
image = np.random.default_rng(0).integers(0, 255, (1500, 1500), np.uint8)
job = client.request("segment", {"model": "tiny", "diameter": 10}, {"image": image})
while client.pid is None:
    time.sleep(0.001)
print(client.pid, flush=True)
if sys.argv[1] == "computing":
    while job.progress is None and not job.done:
        time.sleep(0.01)
assert not job.error, job.error
print("now", flush=True)
time.sleep(60)
"""


def seconds_to_end(home, stage, delay_s, wait_until, is_running) -> float:
    """Kill a worker's parent with SIGKILL and return how long the worker lived on."""
    environment = {**os.environ, "XLSTM_UNET_HOME": str(home), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", PARENT, stage]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            worker = int(process.stdout.readline())
            assert process.stdout.readline() == b"now\n"
            time.sleep(delay_s)
            assert is_running(worker)
        finally:
            process.kill()
        return wait_until(lambda: not is_running(worker), 30)


@pytest.mark.skipif(sys.platform == "win32", reason="reads /proc")
@pytest.mark.parametrize("stage", ["starting", "computing"])
def test_worker_ends_with_its_killed_parent(home, stage, wait_until, is_running):
    assert seconds_to_end(home, stage, 0.3, wait_until, is_running) < 2


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(sys.platform == "win32", reason="reads /proc")
def test_worker_ends_with_its_killed_parent_twenty_times_of_twenty(home, wait_until, is_running):
    chance = random.Random(0)
    seconds = []
    for turn in range(20):
        stage = "starting" if turn % 4 == 0 else "computing"
        seconds.append(seconds_to_end(home, stage, chance.uniform(0, 3), wait_until, is_running))
    assert max(seconds) < 2, seconds
