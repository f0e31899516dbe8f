"""A worker on the real transport whose methods misbehave on request; started by the tests as a process."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time

from xlstm_unet.errors import ImageError
from xlstm_unet.progress import Progress, check_cancelled
from xlstm_unet.worker.server import serve


def prepare():
    import numpy as np

    from xlstm_unet.worker.protocol import Reply
    from xlstm_unet.worker.registry import Method, Params

    class Work(Params):
        seconds: float = 0.0
        megabytes: int = 0
        text: str = ""

    def echo(params, task):
        return Reply({"text": params.text, "pid": os.getpid()}, dict(task.arrays))

    def work(params, task):
        steps = max(int(params.seconds / 0.02), 1)
        for step in range(steps):
            task.progress(Progress("working", step, steps))
            check_cancelled(task.cancelled)
            time.sleep(0.02)
        return Reply({"text": params.text})

    def stubborn(params, task):
        task.progress(Progress("working", 0, 1))
        time.sleep(params.seconds)
        return Reply()

    def chatter(params, task):
        print("printed by Python", flush=True)
        os.write(1, b"printed on descriptor 1\n")
        ctypes.CDLL(None).puts(b"printed by C")
        ctypes.CDLL(None).fflush(None)
        subprocess.run([sys.executable, "-c", "print('printed by a child')"], check=True)
        return Reply({"stdin": sys.stdin.read()})

    def produce(params, task):
        return Reply({}, {"block": np.full(params.megabytes * 2**20, 7, np.uint8)})

    def fill_memory(params, task):
        return Reply({"size": int(np.ones(params.megabytes * 2**20, np.uint8).size)})

    def die(params, task):
        print("about to die", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def fail(params, task):
        if params.text == "image":
            raise ImageError("Image 'x' has NaN at (3, 4), expected numbers.", "Replace them.")
        if params.text == "reply":
            return Reply({"value": float("nan")})
        raise ZeroDivisionError("division by zero")

    def spawn(params, task):
        return Reply({"child": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid})

    array = frozenset({"image"})
    methods = (
        Method("echo", Work, echo, array),
        Method("echo_text", Work, echo),
        Method("work", Work, work),
        Method("latest", Work, work, replaces=lambda params: params.text),
        Method("quick", Work, echo, lane="quick"),
        Method("stubborn", Work, stubborn),
        Method("chatter", Work, chatter),
        Method("produce", Work, produce),
        Method("fill_memory", Work, fill_memory),
        Method("die", Work, die),
        Method("fail", Work, fail),
        Method("spawn", Work, spawn),
    )
    delay = os.environ.get("PRACTICE_START_SECONDS")
    if delay:
        print("starting slowly", file=sys.stderr, flush=True)
        time.sleep(float(delay))
    if os.environ.get("PRACTICE_START_FAILS"):
        raise ImportError("No module named 'torch'")
    return (lambda: {"devices": [], "models": []}), methods


if __name__ == "__main__":
    serve(prepare)
