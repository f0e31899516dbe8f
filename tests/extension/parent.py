"""A front that is killed: it starts a worker, gives it work, prints both process ids, and waits."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "slicer_extension" / "XLSTMUNet"))

import os

import XLSTMUNetLib  # noqa: F401 - makes the core importable
from XLSTMUNetLib.workplace import Kind, Workplace

from xlstm_unet.worker.client import WorkerClient

place = Workplace(Kind.PYTHON, python=sys.argv[1])
client = WorkerClient(place.command(""), place.environment({}, dict(os.environ)))
image = np.random.default_rng(0).normal(size=(64, 128, 128)).astype(np.float32)
job = client.request("segment", {"model": sys.argv[2], "axes": "ZYX", "device": "cpu"}, {"image": image})
while client.pid is None:
    time.sleep(0.005)
print(client.pid, flush=True)
job.add_done_callback(lambda _: print("done", flush=True))
time.sleep(600)
