"""Time whole networks on the CPU: the released Enc at microscopy size, 3D, and small ones.

Run ``python tests/benchmarks/bench_network.py --help``. Every case runs in its own process, so that peak
memory is its own. The machine should be idle: the load average at the start is part of the result. On a busy
one, the CPU seconds with OMP_NUM_THREADS=1 still tell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from typing import Any

SMALL = {"features": (16, 32, 64, 96, 128), "encoder_blocks": (1,) * 5, "decoder_blocks": (1,) * 4}
RELEASED_3D = {
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    "blocks": (2, 2, 2, 1, 1, 1),
}
CASES: dict[str, dict[str, Any]] = {
    "enc-512": {"variant": "enc", "patch": (512, 512), "stages": 8},
    "enc-512-none": {"variant": "enc", "patch": (512, 512), "stages": 8, "mixer": "none"},
    "enc-3d": {"variant": "enc", "patch": (48, 160, 224), "stages": 6},
    "enc-3d-none": {"variant": "enc", "patch": (48, 160, 224), "stages": 6, "mixer": "none"},
    "small-none": {"variant": "bot", "patch": (512, 512), "mixer": "none", **SMALL},
    "small-bot": {"variant": "bot", "patch": (512, 512), **SMALL},
    "small-enc": {"variant": "enc", "patch": (512, 512), **SMALL},
    "small-dense": {"variant": "dense", "patch": (512, 512), **SMALL},
    "wide-none": {
        "variant": "bot",
        "patch": (512, 512),
        "mixer": "none",
        **SMALL,
        "features": (24, 48, 96, 160, 192),
    },
    "wide-dense": {"variant": "dense", "patch": (512, 512), **SMALL, "features": (24, 48, 96, 160, 192)},
}


def model_spec(case: dict[str, Any]) -> Any:
    """Return the ModelSpec of a case; with ``stages`` it is the released network of that many."""
    from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

    dimension = len(case["patch"])
    stages = case.get("stages", 5)
    released = "stages" in case
    widest = 512 if dimension == 2 else 320
    doubled = math.ceil(stages / 2)
    network = NetworkSpec(
        variant=case["variant"],
        mixer=case.get("mixer", "vil"),
        features=case.get("features", tuple(min(32 * 2**s, widest) for s in range(stages))),
        kernels=((3,) * dimension,) * stages,
        strides=RELEASED_3D["strides"]
        if dimension == 3
        else ((1,) * dimension,) + ((2,) * dimension,) * (stages - 1),
        encoder_blocks=case.get("encoder_blocks", (2,) * doubled + (1,) * (stages - doubled)),
        decoder_blocks=case.get(
            "decoder_blocks", tuple(2 if s < stages / 2 else 1 for s in range(stages - 1))
        ),
        direction="paired" if case["variant"] == "dense" else "forward",
        channel_tokens=released,
        finest_skip=dimension == 3 or not released,
    )
    return ModelSpec(
        name="bench",
        dimension=dimension,
        input_channels=3 if dimension == 2 else 1,
        task="classes",
        labels=tuple(Label(value=v, name=str(v)) for v in range(1, 4)),
        network=network,
        normalisation=(Normalisation(scheme="zscore"),),
        patch_size=case["patch"],
    )


def measure(name: str, precision: str, repeats: int, tuned: bool) -> dict[str, Any]:
    """Time one case in this process."""
    import resource

    import torch

    from xlstm_unet.allocator import tune_allocator
    from xlstm_unet.nets import build_network, count_parameters, inference_context, prepare

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if tuned:
        tune_allocator()
    load = os.getloadavg()[0]
    spec = model_spec(CASES[name])
    cpu = torch.device("cpu")
    network = build_network(spec, generator=torch.Generator().manual_seed(0))
    parameters = count_parameters(network)
    network = prepare(network, cpu, precision=precision)  # type: ignore[arg-type]
    x = torch.randn(1, spec.input_channels, *spec.patch_size)
    seconds, cpu_seconds = [], []
    with inference_context(cpu):
        network(x)
        for _ in range(repeats):
            start, cpu_start = time.perf_counter(), time.process_time()
            network(x)
            seconds.append(time.perf_counter() - start)
            cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "case": name,
        "precision": precision,
        "parameters": parameters,
        "min_s": round(min(seconds), 4),
        "median_s": round(statistics.median(seconds), 4),
        "cpu_s": round(min(cpu_seconds), 4),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "threads": torch.get_num_threads(),
        "load": round(load, 2),
    }


def main() -> None:
    """Run the cases asked for and print a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all without any")
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--default-malloc", action="store_true", help="leave the allocator as it is")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        case, precision = options.cases[0], options.precision[0]
        print(json.dumps(measure(case, precision, options.repeats, not options.default_malloc)))
        return
    if not options.json:
        numbers = ("min s", "median", "cpu s", "peak MB")
        print(f"{'case':14}{'precision':10}{'params/M':>9}" + "".join(f"{n:>8}" for n in numbers) + "  load")
    for case in options.cases or CASES:
        for precision in options.precision:
            command = [sys.executable, __file__, "--here", case, "--repeats", str(options.repeats)]
            command += ["--default-malloc"] if options.default_malloc else []
            command += ["--precision", precision]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            r = json.loads(run.stdout)
            row = f"{case:14}{precision:10}{r['parameters'] / 1e6:9.2f}{r['min_s']:8.3f}{r['median_s']:8.3f}"
            row += f"{r['cpu_s']:8.3f}{r['peak_mb']:8}{r['load']:6.2f}"
            print(run.stdout.strip() if options.json else row, flush=True)


if __name__ == "__main__":
    main()
