"""Time whole networks, with ViL layers and without: the released Enc, ours at every stage, small ones.

Run ``python tests/benchmarks/bench_network.py --help``. Every case runs in its own process, so that peak
memory is its own. The machine should be idle: the load average at the start is part of the result. On a busy
one, the CPU seconds with OMP_NUM_THREADS=1 still tell.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SMALL = {"features": (16, 32, 64, 96, 128), "encoder_blocks": (1,) * 5, "decoder_blocks": (1,) * 4}
RELEASED_3D = {
    "strides": ((1, 1, 1), (1, 2, 2), (2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)),
    "blocks": (2, 2, 2, 1, 1, 1),
}
TINY = {"features": (8, 16), "encoder_blocks": (1, 1), "decoder_blocks": (1,)}
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
    "dense-3d": {"variant": "dense", "patch": (128, 128, 128), **SMALL},
    "dense-3d-none": {"variant": "dense", "patch": (128, 128, 128), "mixer": "none", **SMALL},
    "tiny-none": {"variant": "dense", "patch": (8, 8), "mixer": "none", **TINY},
    "tiny-dense": {"variant": "dense", "patch": (8, 8), **TINY},
    "wide-dense": {"variant": "dense", "patch": (512, 512), **SMALL, "features": (24, 48, 96, 160, 192)},
}


def model_spec(case: dict[str, Any]) -> Any:
    """Return the ModelSpec of a case; with ``stages`` it is the released network of that many."""
    from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation

    dimension = len(case["patch"])
    stages = case.get("stages", len(case.get("features", range(5))))
    released = "stages" in case
    widest = 512 if dimension == 2 else 320
    doubled = math.ceil(stages / 2)
    network = NetworkSpec(
        variant=case["variant"],
        mixer=case.get("mixer", "vil"),
        features=case.get("features", tuple(min(32 * 2**s, widest) for s in range(stages))),
        kernels=((3,) * dimension,) * stages,
        strides=RELEASED_3D["strides"]
        if dimension == 3 and released
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


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Time one case in this process."""
    import resource

    import torch

    from xlstm_unet.allocator import tune_allocator
    from xlstm_unet.nets import build_network, count_parameters, inference_context, prepare

    precision, device = options.precision[0], torch.device(options.device)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    if not options.default_malloc:
        tune_allocator()
    load = os.getloadavg()[0]
    spec = model_spec(CASES[name])
    trained = build_network(spec, generator=torch.Generator().manual_seed(0))
    parameters = count_parameters(trained)
    network = prepare(trained, device, precision=precision)
    x = torch.randn(1, spec.input_channels, *spec.patch_size).to(device)
    with inference_context(device):
        found = timed(lambda: network(x), options.repeats, device)
    result = {
        "case": name,
        "device": options.device,
        "precision": precision,
        "parameters": parameters,
        **found,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "threads": torch.get_num_threads(),
        "load": round(load, 2),
    }
    if device.type == "cuda":
        result["peak_mb"] = torch.cuda.max_memory_allocated() >> 20
    if options.train:
        trained = trained.to(device).train()

        def step() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = trained(x).square().mean()
            loss.backward()
            trained.zero_grad()

        result |= {f"train_{key}": value for key, value in timed(step, options.repeats, device).items()}
    return result


def timed(work: Callable[[], object], repeats: int, device: Any) -> dict[str, float]:
    """Seconds of ``work`` after a first call, by the clock and of the processor."""
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    work()
    seconds, cpu_seconds = [], []
    for _ in range(repeats):
        wait()
        start, cpu_start = time.perf_counter(), time.process_time()
        work()
        wait()
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return {
        "min_s": round(min(seconds), 4),
        "median_s": round(statistics.median(seconds), 4),
        "cpu_s": round(min(cpu_seconds), 4),
    }


def main() -> None:
    """Run the cases asked for and print a table, or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; all without any")
    parser.add_argument("--precision", nargs="*", default=["float32", "bfloat16"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--default-malloc", action="store_true", help="leave the allocator as it is")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--train", action="store_true", help="time forward with backward too")
    parser.add_argument("--json", help="file for the figures")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure(options.cases[0], options)))
        return
    numbers = ("min s", "median", "cpu s", "peak MB")
    print(f"{'case':14}{'precision':10}{'params/M':>9}" + "".join(f"{n:>8}" for n in numbers) + "  load")
    results = []
    for case in options.cases or CASES:
        for precision in options.precision:
            command = [sys.executable, __file__, "--here", case, "--repeats", str(options.repeats)]
            command += ["--default-malloc"] if options.default_malloc else []
            command += ["--precision", precision, "--device", options.device]
            command += ["--train"] if options.train else []
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            r = json.loads(run.stdout)
            results.append(r)
            row = f"{case:14}{precision:10}{r['parameters'] / 1e6:9.2f}{r['min_s']:8.3f}{r['median_s']:8.3f}"
            row += f"{r['cpu_s']:8.3f}{r['peak_mb']:8}{r['load']:6.2f}"
            row += f"  training step {r['train_min_s']:.3f}" if options.train else ""
            print(row, flush=True)
            if options.json:
                report = {"command": " ".join(sys.argv), "machine": machine(), "rows": results}
                Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    from importlib.metadata import version

    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": str(os.cpu_count()),
        "bfloat16": ", ".join(flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags) or "none",
        "python": platform.python_version(),
        "torch": version("torch"),
    }


if __name__ == "__main__":
    main()
