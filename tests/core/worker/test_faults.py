"""Everything that can go wrong between a front and its worker, on real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from xlstm_unet import __version__
from xlstm_unet.errors import CancelledError, ImageError
from xlstm_unet.worker.errors import (
    InternalError,
    MemoryShortageError,
    ProtocolError,
    VersionMismatchError,
    WorkerCrashedError,
    WorkerError,
    WorkerStartError,
)
from xlstm_unet.worker.job import JobState

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="uses POSIX signals and shells")

BIG = np.zeros(48 * 2**20, np.uint8)


def script(text: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(text)]


def hello(**changes) -> str:
    fields = {"magic": "xlstm-unet-worker", "type": "hello", "protocol": 1, "version": __version__}
    return json.dumps({**fields, **changes}, separators=(",", ":"))


def assert_works(client) -> None:
    assert client.request("quick", {"text": "again"}).result(20).values["text"] == "again"


# Killed at every stage


def test_killed_before_hello(make_client, practice_command, wait_until):
    client = make_client(practice_command, PRACTICE_START_SECONDS="30")
    job = client.request("quick")
    wait_until(lambda: "starting slowly" in client.stderr_tail())
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match="before it was ready") as caught:
        job.result(5)
    assert caught.value.exit_code == -9
    assert "starting slowly" in caught.value.stderr
    client.env = None
    assert_works(client)


def test_killed_during_the_upload(client, wait_until):
    client.start()
    os.kill(client.pid, signal.SIGSTOP)
    job = client.request("echo", {}, {"image": BIG})
    wait_until(lambda: job.state is JobState.SENDING)
    os.kill(client.pid, signal.SIGKILL)
    with pytest.raises(WorkerCrashedError, match="lack of memory"):
        job.result(5)
    assert_works(client)


def test_killed_while_computing(client, wait_until):
    job = client.request("work", {"seconds": 30})
    waiting = client.request("work", {"seconds": 30})
    wait_until(lambda: job.progress is not None)
    os.kill(client.pid, signal.SIGKILL)
    for lost in (job, waiting):
        with pytest.raises(WorkerCrashedError, match="while running 'work'"):
            lost.result(5)
    assert_works(client)


def test_killed_while_the_result_is_sent(make_client):
    client = make_client(
        script(f"""
            import os, sys, time
            print('{hello()}', flush=True)
            sys.stdin.readline()
            block = '{{"name":"block","dtype":"|u1","shape":[1000000],"nbytes":1000000}}'
            print('{{"type":"result","id":1,"values":{{}},"arrays":[' + block + ']}}', flush=True)
            os.write(1, bytes(10000))
            os.kill(os.getpid(), 9)
        """)
    )
    with pytest.raises(WorkerError, match="after 10000 of the 1000000 bytes of array 'block'"):
        client.request("produce").result(5)


def test_killed_while_idle(client, wait_until):
    first = client.start()["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: client.pid is None)
    assert_works(client)
    assert client.pid != first


def test_killed_by_itself_as_the_system_does_without_memory(client):
    with pytest.raises(WorkerCrashedError, match=r"lack of memory.*about to die") as caught:
        client.request("die").result(5)
    assert "smaller region" in caught.value.hint
    assert_works(client)


# Start


def test_program_that_is_not_there(make_client, tmp_path):
    client = make_client([str(tmp_path / "no such program")])
    with pytest.raises(WorkerStartError, match="no such program"):
        client.start()


def test_command_that_only_prints(make_client):
    with pytest.raises(WorkerError, match="Permission denied"):
        make_client(["sh", "-c", "echo 'Permission denied'; exit 255"]).start()


def test_command_that_the_shell_does_not_find(make_client):
    with pytest.raises(WorkerCrashedError, match="was not found") as caught:
        make_client(["sh", "-c", "xlstm-unet-is-not-here worker"]).start()
    assert caught.value.exit_code == 127
    assert "xlstm-unet-is-not-here" in caught.value.stderr


def test_library_missing_at_the_other_end(make_client, practice_command):
    client = make_client(practice_command, PRACTICE_START_FAILS="1")
    with pytest.raises(WorkerStartError, match="No module named 'torch'"):
        client.start()


@pytest.mark.parametrize("banner", ["Welcome to cluster\n" * 200, "no newline at its end"])
def test_banner_before_the_hello(make_client, practice_command, banner):
    command = ["sh", "-c", 'printf %s "$1"; shift; exec "$@"', "sh", banner, *practice_command]
    assert_works(make_client(command))


def test_garbage_instead_of_a_hello(make_client):
    with pytest.raises(ProtocolError, match=r"b'yes\\nyes"):
        make_client(["yes", "yes"]).start()


@pytest.mark.parametrize(
    ("changes", "named"), [({"protocol": 99}, "protocol 99"), ({"version": "7.3.0"}, "7.3.0")]
)
def test_other_version(make_client, changes, named):
    client = make_client(script(f"print('{hello(**changes)}', flush=True); import time; time.sleep(30)"))
    with pytest.raises(VersionMismatchError, match=named) as caught:
        client.start()
    assert f"this is xlstm-unet {__version__} (protocol 1)" in caught.value.message


def test_worker_that_never_answers(make_client, monkeypatch):
    monkeypatch.setattr("xlstm_unet.worker.client.START_SECONDS", 0.5)
    with pytest.raises(WorkerStartError, match="not answered"):
        make_client(["sleep", "60"]).start()


# The stream


def test_garbage_between_messages(make_client):
    client = make_client(
        script(f"print('{hello()}'); print('oops', flush=True); import time; time.sleep(30)")
    )
    with pytest.raises(ProtocolError, match="oops"):
        client.request("quick").result(5)


@pytest.mark.parametrize(
    "answer",
    [
        '{"type":"progress","id":1,"stage":"x"}',
        '{"type":"progress","id":1,"stage":"x","done":"a","total":1}',
        '{"type":"result","id":1,"values":7}',
        '{"type":"result","id":1}',
        '{"type":"request","id":1}',
        '{"type":"error","id":null,"code":"protocol","message":"lost"}',
    ],
)
def test_answer_that_makes_no_sense(make_client, answer):
    code = f"print('{hello()}'); input(); print('{answer}', flush=True); import time; time.sleep(30)"
    with pytest.raises(ProtocolError):
        make_client(script(code)).request("quick").result(5)


def test_library_that_prints(client, wait_until):
    assert client.request("chatter").result(20).values == {"stdin": ""}
    wait_until(lambda: "printed by a child" in client.stderr_tail())
    for who in ("by Python", "on descriptor 1", "by C"):
        assert f"printed {who}" in client.stderr_tail()


def test_both_pipes_full(client):
    jobs = [client.request("echo", {"text": str(n)}, {"image": BIG}) for n in range(3)]
    for number, job in enumerate(jobs):
        reply = job.result(60)
        assert reply.values["text"] == str(number)
        assert reply.arrays["image"].shape == BIG.shape


def test_payload_cut_short(practice_command):
    spec = {"name": "image", "dtype": "|u1", "shape": [1000], "nbytes": 1000}
    request = {"type": "request", "id": 1, "method": "echo", "params": {}, "arrays": [spec]}
    process = subprocess.run(
        practice_command,
        input=json.dumps(request).encode() + b"\n" + bytes(10),
        capture_output=True,
        timeout=10,
    )
    answers = [json.loads(line) for line in process.stdout.splitlines()]
    assert [answer["type"] for answer in answers] == ["hello", "error"]
    assert "after 10 of the 1000 bytes" in answers[1]["message"]


REFUSED = [
    ({"method": "segmentt"}, "Unknown method 'segmentt'"),
    ({"params": {"colour": 3}}, "colour"),
    ({"params": {"seconds": "long"}}, "seconds"),
    ({"params": 3}, "params"),
    ({"shade": 1}, "Unknown field 'shade'"),
    ({"type": "result", "values": {}}, "takes requests and cancels"),
    ({"arrays": [{"name": "picture", "dtype": "|u1", "shape": [100000], "nbytes": 100000}]}, "picture"),
    ({"arrays": [{"name": "image", "dtype": "|u1", "shape": [7], "nbytes": 100000}]}, "100000 bytes"),
    ({"arrays": [{"name": "image", "dtype": "|O", "shape": [12500], "nbytes": 100000}]}, "dtype"),
]


def test_refused_messages_are_answered_and_their_payload_drained(practice_command):
    stream = b""
    for number, (changes, _) in enumerate(REFUSED):
        request = {"type": "request", "id": number, "method": "echo", "params": {}, **changes}
        if request["type"] == "result":
            del request["method"], request["params"]
        stream += (
            json.dumps(request).encode() + b"\n" + bytes(sum(a["nbytes"] for a in request.get("arrays", [])))
        )
    stream += b'{"type":"request","id":99,"method":"quick","params":{"text":"still here"}}\n'
    with subprocess.Popen(practice_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(stream)
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(len(REFUSED) + 2)][1:]
    for number, (_, named) in enumerate(REFUSED):
        assert answers[number]["type"] == "error"
        assert answers[number]["id"] == number
        assert answers[number]["code"] == "protocol"
        assert named in answers[number]["message"]
    assert answers[-1]["values"]["text"] == "still here"


def test_announced_terabytes_are_refused_before_they_come(practice_command):
    spec = {"name": "image", "dtype": "<f8", "shape": [2**37], "nbytes": 2**40}
    request = {"type": "request", "id": 4, "method": "echo", "params": {}, "arrays": [spec]}
    with subprocess.Popen(practice_command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
        process.stdout.readline()
        answer = json.loads(process.stdout.readline())
        memory_kb = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4
        process.stdin.close()
        assert process.wait(5) == 0
    assert "at most" in answer["message"]
    assert memory_kb < 500_000


def test_endless_header_ends_the_worker(practice_command):
    process = subprocess.run(
        practice_command, input=b"x" * 5 * 2**20, capture_output=True, timeout=10, check=False
    )
    assert process.returncode == 2
    assert "A header has more than" in process.stdout.splitlines()[-1].decode()


def test_oversize_and_odd_arrays_are_refused_by_the_client(client):
    with pytest.raises(ProtocolError, match="complex128"):
        client.request("echo", {}, {"image": np.zeros(3, complex)}).result(10)
    with pytest.raises(ProtocolError, match="not JSON"):
        client.request("quick", {"text": b"bytes"}).result(10)
    huge = np.broadcast_to(np.zeros(1, np.uint8), (2**35,))
    with pytest.raises(ProtocolError, match="at most"):
        client.request("echo", {}, {"image": huge}).result(10)

    class Broken:
        def __array__(self, dtype=None, copy=None):
            raise OSError("the disk is gone")

    with pytest.raises(WorkerError, match="the disk is gone"):
        client.request("echo", {}, {"image": Broken()}).result(10)
    assert_works(client)


# Errors of the work itself


@pytest.mark.parametrize(
    ("text", "kind", "named"),
    [
        ("image", ImageError, "NaN at"),
        ("reply", ProtocolError, "not JSON"),
        ("other", InternalError, "ZeroDivisionError"),
    ],
)
def test_errors_arrive_as_their_type(client, text, kind, named):
    with pytest.raises(kind, match=named) as caught:
        client.request("fail", {"text": text}).result(10)
    if kind is ImageError:
        assert caught.value.hint == "Replace them."
    assert_works(client)


def test_no_memory_for_work_or_payload(make_client, practice_command):
    limited = ["sh", "-c", 'ulimit -v 700000; exec "$@"', "sh", *practice_command]
    client = make_client(limited, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    first = client.start()["pid"]
    with pytest.raises(MemoryShortageError, match="not enough memory"):
        client.request("fill_memory", {"megabytes": 2000}).result(20)
    with pytest.raises(MemoryShortageError, match="not enough memory"):
        client.request("echo", {}, {"image": np.zeros(800 * 2**20, np.uint8)}).result(30)
    assert client.request("quick").result(10).values["pid"] == first


# Cancel


def test_cancel_in_the_middle_of_a_payload(client, wait_until, is_running):
    first = client.start()["pid"]
    os.kill(first, signal.SIGSTOP)
    job = client.request("echo", {}, {"image": BIG})
    wait_until(lambda: job.state is JobState.SENDING)
    time.sleep(0.1)
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(1)
    wait_until(lambda: client.pid not in (None, first))
    wait_until(lambda: not is_running(first))
    assert_works(client)


def test_cancel_of_work_that_listens_keeps_the_worker(client, wait_until):
    first = client.start()["pid"]
    job = client.request("work", {"seconds": 30})
    wait_until(lambda: job.progress is not None)
    start = time.monotonic()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(5)
    assert time.monotonic() - start < 0.9
    assert job.cancelled
    assert client.request("quick").result(5).values["pid"] == first


def test_cancel_of_work_that_does_not_listen_restarts_the_worker(client, wait_until):
    first = client.start()["pid"]
    job = client.request("stubborn", {"seconds": 30})
    other = client.request("work", {"seconds": 30})
    wait_until(lambda: job.progress is not None)
    start = time.monotonic()
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(5)
    assert time.monotonic() - start < 1.5
    with pytest.raises(WorkerError, match="restarted because 'stubborn' was cancelled"):
        other.result(5)
    wait_until(lambda: client.pid not in (None, first))


def test_cancel_of_a_waiting_job_leaves_the_running_one(client, wait_until):
    running = client.request("work", {"seconds": 1.5, "text": "finished"})
    waiting = client.request("work", {"seconds": 30})
    wait_until(lambda: running.progress is not None)
    waiting.cancel()
    with pytest.raises(CancelledError):
        waiting.result(1)
    assert running.result(10).values["text"] == "finished"


def test_cancel_before_the_worker_is_ready(make_client, practice_command):
    client = make_client(practice_command, PRACTICE_START_SECONDS="0.3")
    job = client.request("work", {"seconds": 30})
    job.cancel()
    with pytest.raises(CancelledError):
        job.result(0.1)
    assert_works(client)


# The end


PARENT = """
    import sys, time, numpy as np
    sys.path[:0] = {path}
    from xlstm_unet.worker.client import WorkerClient
    client = WorkerClient({command})
    pid = client.start()["pid"]
    if {stage!r} != "idle":
        job = client.request("work" if {stage!r} == "computing" else "stubborn", {{"seconds": 60}})
        while job.progress is None:
            time.sleep(0.01)
    if {stage!r} == "uploading":
        client.request("echo", {{}}, {{"image": np.zeros(2**30, np.uint8)}})
    print(pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("stage", ["idle", "computing", "stubborn", "uploading"])
def test_parent_killed(practice_command, stage, wait_until, is_running):
    parent = script(PARENT.format(path=[], command=practice_command, stage=stage))
    with subprocess.Popen(parent, stdout=subprocess.PIPE) as process:
        worker = int(process.stdout.readline())
        assert is_running(worker)
        process.kill()
        assert wait_until(lambda: not is_running(worker)) < 2


def test_launcher_and_children_go_with_the_client(make_client, practice_command, wait_until, is_running):
    launcher = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"]
    client = make_client([*launcher, *practice_command])
    worker = client.start()["pid"]
    assert worker != client.pid
    job = client.request("stubborn", {"seconds": 60})
    wait_until(lambda: job.progress is not None)
    job.cancel()
    wait_until(lambda: not is_running(worker))
    second = client.start()["pid"]
    client.close()
    wait_until(lambda: not is_running(second))


def test_close_ends_jobs_processes_and_descriptors(make_client, practice_command, is_running):
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(3):
        client = make_client(practice_command)
        pid = client.start()["pid"]
        jobs = [client.request("work", {"seconds": 30}) for _ in range(2)]
        start = time.monotonic()
        client.close()
        assert time.monotonic() - start < 2
        for job in jobs:
            with pytest.raises(CancelledError):
                job.result(0)
        assert not is_running(pid)
        client.close()
        with pytest.raises(WorkerError, match="closed"):
            client.request("quick")
    assert descriptors() == before


def test_shutdown(client, wait_until, is_running):
    first = client.start()["pid"]
    client.request("shutdown").result(5)
    wait_until(lambda: client.pid is None)
    assert not is_running(first)
    assert_works(client)


def test_spaces_and_unicode_in_paths(make_client, tmp_path):
    folder = tmp_path / "Ordner mit Leerzeichen, ü und 空白"
    folder.mkdir()
    copy = shutil.copy(Path(__file__).with_name("practice_worker.py"), folder / "Arbeiter 1.py")
    assert_works(make_client([sys.executable, str(copy)]))
