"""Time and memory of segmenting and of decoding alone: ``python tests/benchmarks/segmenting.py --help``.

Images of any side are made by repeating a real one; with ``--volume 155 240 240`` a volume of 1 mm is.
"""

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
from xlstm_unet.images import Image, read_image
from xlstm_unet.segment import Segmenter, decode_instances
from xlstm_unet.zoo import load_model

SAMPLE = Path(__file__).resolve().parents[1] / "data" / "nuclei" / "images" / "fluo_large.png"
VOLUME = SAMPLE.parents[2] / "hippocampus" / "images" / "hippocampus_125.nii.gz"


def tiled(sample: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Repeat a gray image or volume, mirrored so that no seam shows, to a ``shape``."""
    return np.pad(
        sample, [(0, max(0, n - m)) for n, m in zip(shape, sample.shape, strict=True)], "symmetric"
    )[tuple(slice(n) for n in shape)]


def peak_gigabytes() -> float:
    """Largest memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    """Print one JSON line for each size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--sides", type=int, nargs="+", default=[512, 2048, 8192])
    parser.add_argument("--volume", type=int, nargs=3, metavar=("Z", "Y", "X"), help="for models of volumes")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bundle = load_model(arguments.model)
    segmenter = Segmenter(bundle.spec, bundle.build(), device=arguments.device)
    sample = read_image(arguments.image or (VOLUME if arguments.volume else SAMPLE)).array
    if arguments.volume:
        volume = Image(
            tiled(sample, tuple(arguments.volume)), "ZYX", spacing=(1.0,) * 3, affine=np.eye(4), unit="mm"
        )
        segmenter(volume)
        seconds = min(segmenter(volume).seconds for _ in range(3))
        print(
            json.dumps({"shape": volume.array.shape, "seconds": seconds, "peak_gigabytes": peak_gigabytes()})
        )
        return
    for side in arguments.sides:
        image = tiled(sample, (side, side))
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
