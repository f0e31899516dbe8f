from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from xlstm_unet.errors import CancelledError
from xlstm_unet.worker.client import WorkerClient


def test_client_needs_numpy_only():
    code = (
        "import sys, xlstm_unet.worker.client\n"
        "heavy = {'torch', 'pydantic', 'scipy', 'skimage', 'safetensors', 'qtpy', 'napari', 'platformdirs'}\n"
        "print(sorted(heavy & set(sys.modules)), 'numpy' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[] True"


def test_server_module_imports_nothing_but_the_standard_library():
    code = "import sys, xlstm_unet.worker.server; print('numpy' in sys.modules, 'pydantic' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]


def test_request_returns_at_once_and_reports_progress(client):
    seen, ended = [], threading.Event()
    start = time.monotonic()
    job = client.request("work", {"seconds": 0.5, "text": "é"}, on_progress=seen.append)
    assert time.monotonic() - start < 0.1
    assert not job.done
    job.add_done_callback(lambda _: ended.set())
    assert job.result(10).values == {"text": "é"}
    assert ended.wait(1)
    assert job.done
    assert job.error is None
    assert [step.done for step in seen] == sorted(step.done for step in seen)
    assert 2 <= len(seen) <= 15
    assert seen[0].stage == "working"


def test_callback_that_fails_does_no_harm(client, caplog):
    def bad(_):
        raise RuntimeError("not my day")

    job = client.request("work", {"seconds": 0.1}, on_progress=bad)
    job.add_done_callback(bad)
    job.result(10)
    job.add_done_callback(lambda _: None)
    assert client.request("quick").result(10)
    assert "not my day" in caplog.text


def test_many_threads_get_their_own_answers(client):
    wrong = []

    def ask(number: int) -> None:
        for turn in range(10):
            array = np.full((number + 1, 50), turn, np.int32)
            reply = client.request("echo", {"text": f"{number}-{turn}"}, {"image": array}).result(30)
            if reply.values["text"] != f"{number}-{turn}" or not np.array_equal(reply.arrays["image"], array):
                wrong.append((number, turn))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_quick_methods_answer_beside_a_running_job(client):
    job = client.request("work", {"seconds": 1.0})
    client.start()
    assert client.request("quick", {"text": "now"}).result(0.5).values["text"] == "now"
    assert not job.done
    job.result(10)


def test_latest_request_wins(client):
    client.start()
    jobs = [client.request("latest", {"seconds": 0.3, "text": "slider"}) for _ in range(5)]
    other = client.request("latest", {"seconds": 0.0, "text": "another"})
    for job in jobs[:-1]:
        with pytest.raises(CancelledError):
            job.result(5)
    assert jobs[-1].result(5).values["text"] == "slider"
    assert other.result(5).values["text"] == "another"


def test_result_times_out_and_goes_on(client):
    job = client.request("work", {"seconds": 0.4})
    with pytest.raises(TimeoutError):
        job.result(0.01)
    job.result(10)


def test_client_closes_from_a_callback(practice_command):
    client = WorkerClient(practice_command)
    closed = threading.Event()
    job = client.request("quick")
    job.add_done_callback(lambda _: (client.close(), closed.set()))
    job.result(10)
    assert closed.wait(5)
    client.close()
