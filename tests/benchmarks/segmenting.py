"""Time and memory of segmenting and of decoding alone: ``python tests/benchmarks/segmenting.py --help``."""

from __future__ import annotations

import argparse
import json
import resource
from contextlib import suppress
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from xlstm_unet.errors import CancelledError
from xlstm_unet.images import read_image
from xlstm_unet.segment import Segmenter, decode_instances
from xlstm_unet.zoo import load_model

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "nuclei" / "images" / "fluo_large.png"


def tiled(sample: np.ndarray, side: int) -> np.ndarray:
    """Repeat a gray image, mirrored so that no seam shows, to a square of ``side``."""
    block = np.block([[sample, sample[:, ::-1]], [sample[::-1], sample[::-1, ::-1]]])
    repeats = [-(-side // n) for n in block.shape]
    return np.ascontiguousarray(np.tile(block, repeats)[:side, :side])


def peak_gigabytes() -> float:
    """Largest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print one JSON line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", type=Path, default=SAMPLE)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_model(arguments.model)
    segmenter = Segmenter(bundle.spec, bundle.build(), device=arguments.device)
    sample = read_image(arguments.image).array
    for side in arguments.sides:
        image = tiled(sample, side)
        segmenter(image[:512, :512])
        runs = [segmenter(image, keep_maps=side <= 2048) for _ in range(5 if side <= 512 else 1)]
        best = min(runs, key=lambda result: result.seconds)
        figures = {"side": side, "seconds": best.seconds, "objects": int(best.labels.max())}
        if best.maps is not None:
            started = perf_counter()
            decode_instances(*best.maps.values, **best.decoding.model_dump())
            figures["decoding_seconds"] = perf_counter() - started
        print(json.dumps({**figures, "peak_gigabytes": peak_gigabytes(), **cancel_pauses(segmenter, image)}))


def cancel_pauses(segmenter: Segmenter, image: np.ndarray) -> dict[str, float]:
    """Longest time between two looks at ``cancel``, and the delay of a cancel in the middle."""
    asked = [perf_counter()]

    def watch() -> bool:
        asked.append(perf_counter())
        return False

    segmenter(image, cancel=watch)
    asked.append(perf_counter())
    deadline = perf_counter() + (asked[-1] - asked[0]) / 2
    with suppress(CancelledError):
        segmenter(image, cancel=lambda: perf_counter() > deadline)
    return {"longest_pause": float(np.diff(asked).max()), "cancel_delay": perf_counter() - deadline}


if __name__ == "__main__":
    main()
