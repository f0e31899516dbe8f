"""Time the command line as a process: help, the first image, and Ctrl-C at several moments.

Run ``python tests/benchmarks/bench_command_line.py --model nuclei``. The machine should be idle.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile

from xlstm_unet.samples import SAMPLES

COMMAND = [sys.executable, "-m", "xlstm_unet.cli"]


def seconds(*arguments: str) -> float:
    begin = time.perf_counter()
    subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def tiled(size: int) -> np.ndarray:
    """Return an image of ``size`` x ``size`` pixels, made of mirrored copies of a sample."""
    from xlstm_unet.images import read_image

    tile = read_image(SAMPLES[2].image).array
    return np.pad(tile, [(0, size - n) for n in tile.shape], mode="symmetric")


def cancel_seconds(model: str, image: Path, output: Path, after: float) -> tuple[float, int]:
    process = subprocess.Popen(
        [*COMMAND, "segment", str(image), "--model", model, "--output", str(output)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    time.sleep(after)
    begin = time.perf_counter()
    process.send_signal(signal.SIGINT)
    code = process.wait()
    return time.perf_counter() - begin, code


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--size", type=int, default=4096, help="side of the image that is cancelled")
    options = parser.parse_args()
    print("load average", os.getloadavg())
    for arguments in (("--help",), ("segment", "--help"), ("models", "list")):
        times = [seconds(*arguments) for _ in range(options.repeats)]
        print(f"{' '.join(arguments)}: median {statistics.median(times):.3f} s, worst {max(times):.3f} s")
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "out"
        first = seconds("segment", str(SAMPLES[0].image), "--model", options.model, "--output", str(output))
        print(f"segment {SAMPLES[0].name} (256x256), from start to end of the process: {first:.2f} s")
        image = Path(folder) / "large.tif"
        tifffile.imwrite(image, tiled(options.size))
        for after in np.arange(0.5, 12.5, 1.0):
            taken, code = cancel_seconds(options.model, image, Path(folder) / "cancelled", float(after))
            left = list((Path(folder) / "cancelled").glob("*"))
            print(f"Ctrl-C after {after:4.1f} s: exit code {code} in {taken:.2f} s, {len(left)} files left")


if __name__ == "__main__":
    main()
