"""Measure the mLSTM cell against its peers in one run on the same inputs: ``python -m xlstm_kernels.bench``.

Peers are the dense (released) form, PyTorch's scaled dot product attention, and the package ``mlstm_kernels``
where it is installed; it is padded to the lengths and widths it can take. Times are medians; on a GPU of
graph replays where the work can be captured, else of events. The floor is the time to move every input and
output once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from xlstm_kernels.backend import describe
from xlstm_kernels.cell import mlstm
from xlstm_kernels.vil import vil_layer
from xlstm_kernels.weights import ViLWeights

GPU_SHAPES = [
    (2, 210, 4, 160), (1, 320, 2, 210), (8, 256, 4, 128), (8, 512, 4, 128), (1, 4096, 4, 64), (2, 4096, 4,
    64), (2, 4096, 4, 128), (2, 6720, 4, 128), (2, 6400, 4, 64), (2, 15360, 4, 64), (2, 16384, 4, 32),
    (2, 25600, 4, 32), (2, 65536, 4, 16), (2, 262144, 4, 16), (2, 442368, 4, 16),
]  # fmt: skip
CPU_SHAPES = [
    (1, 210, 4, 160), (1, 256, 4, 64), (1, 1024, 4, 64), (1, 4096, 4, 64), (1, 15360, 4, 64), (1, 65536, 4,
    16),
]  # fmt: skip
LAYERS = [
    (512, 32, 32), (256, 64, 64), (128, 128, 128), (64, 128, 128), (32, 128, 128),
    (256, 8, 16, 16), (128, 16, 32, 32), (32, 32, 32, 32),
]  # fmt: skip
"""Features and sides of the feature maps, in 2D and 3D, that a layer is timed on."""

DENSE_LIMIT = 1 << 31
"""Largest number of pairs (B * NH * S * S) that the dense form is given."""

Work = Callable[[], object]


def inputs(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Random q, k, v and gates with a memory of some twenty tokens and more."""
    g = torch.Generator(device).manual_seed(0)
    tokens = [torch.randn(shape, generator=g, device=device).to(dtype) for _ in range(3)]
    i = torch.randn(shape[:3], generator=g, device=device)
    f = torch.randn(shape[:3], generator=g, device=device) + torch.linspace(3, 6, shape[2], device=device)
    return [*tokens, i, f]


def padded_peer(kernel: Callable[..., Tensor], size: int, width: int) -> Callable[..., Tensor]:
    """``mlstm_kernels`` behind the signature of `mlstm`, padded to what it can take."""
    length = -(-size // 64) * 64 if size > 128 else max(16, 1 << (size - 1).bit_length())
    wide = max(16, 1 << (width - 1).bit_length())

    def run(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
        pad = (0, wide - width, 0, length - size)
        q, k, v = (F.pad(x.transpose(1, 2), pad) for x in (q, k, v))
        i, f = (F.pad(x.transpose(1, 2), (0, length - size)) for x in (i, f))
        h = kernel(q=q * (wide / width) ** 0.5, k=k, v=v, i=i, f=f, chunk_size=min(64, length))
        return h[:, :, :size, :width].transpose(1, 2)

    return run


def load_peer() -> tuple[Callable[..., Tensor] | None, str]:
    """Chunkwise kernel of ``mlstm_kernels`` and its version, if it is installed."""
    try:
        module = importlib.import_module("mlstm_kernels.torch.chunkwise.triton_xl_chunk")
        return module.mlstm_chunkwise__xl_chunk, version("mlstm_kernels")
    except Exception as error:
        return None, f"not run ({type(error).__name__}: {error})"


def attention(q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor) -> Tensor:
    """Causal attention of the same tokens; the gates are not used."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2)


def contenders(
    shape: tuple[int, ...], device: torch.device, peer: Callable[..., Tensor] | None
) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """What is measured at a shape."""
    batch, size, heads, width = shape
    yield "ours", mlstm
    if batch * heads * size * size <= (DENSE_LIMIT if device.type == "cuda" else 1 << 26):
        yield "dense", lambda *x: mlstm(*x, backend="dense")
    if device.type == "cuda" or size <= 4096:
        yield "sdpa", attention
    if peer is not None and device.type == "cuda":
        yield "mlstm_kernels", padded_peer(peer, size, width)


def seconds(work: Work, device: torch.device, budget: float) -> float:
    """Median time of one call, within about ``budget`` seconds of measuring."""
    if device.type != "cuda":
        return _median(work, budget)
    for _ in range(2):
        work()
    torch.cuda.synchronize()
    flush = torch.empty(64 << 20, dtype=torch.int32, device=device)
    times: list[float] = []
    spent = 0.0
    while len(times) < 5 or (spent < budget and len(times) < 50):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        flush.zero_()
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
        spent += times[-1] + 1e-4
    return statistics.median(times)


def cpu_clock() -> Callable[[], float]:
    """With one thread processor time, which other programs disturb least; else wall time."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _median(work: Work, budget: float) -> float:
    clock, times = cpu_clock(), list[float]()
    work()
    start = clock()
    work()
    first = clock() - start
    if first > 5 * budget:
        return first
    while len(times) < 3 or (sum(times) < budget and len(times) < 50):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)


def captured(work: Work, device: torch.device) -> Work:
    """The work as a replayed CUDA graph where it can be captured: launches cost nothing then."""
    if device.type != "cuda":
        return work
    try:
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        with torch.cuda.stream(side):
            work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
    except Exception:
        torch.cuda.synchronize()
        return work
    return graph.replay


def floor_bytes(shape: tuple[int, ...], element: int, backward: bool) -> int:
    """Bytes of every input and output once; backward reads them again and writes gradients."""
    batch, size, heads, width = shape
    tokens, gates = batch * size * heads * width * element, batch * size * heads * 4
    forward = 4 * tokens + 2 * gates
    return forward + (4 * tokens + 2 * gates) + (3 * tokens + 2 * gates) if backward else forward


def measure(
    name: str, cell: Callable[..., Tensor], data: list[Tensor], device: torch.device, budget: float
) -> dict[str, Any]:
    """Time and peak memory of one contender, forward and forward with backward."""
    tensors = [x.detach().requires_grad_() for x in data]
    upstream = torch.randn_like(data[0])

    def forward() -> object:
        with torch.no_grad():
            return cell(*data)

    def both() -> object:
        return torch.autograd.grad(cell(*tensors), tensors[:3] if name == "sdpa" else tensors, upstream)

    found: dict[str, Any] = {"name": name}
    for label, work in (("forward", forward), ("both", both)):
        try:
            if device.type == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                work()
                found[f"{label}_mb"] = (torch.cuda.max_memory_allocated() - before) / 2**20
            found[f"{label}_ms"] = 1e3 * seconds(captured(work, device), device, budget)
            if device.type == "cuda":
                found[f"{label}_eager_ms"] = 1e3 * seconds(work, device, budget)
        except Exception as error:
            found[f"{label}_error"] = f"{type(error).__name__}: {str(error)[:120]}"
    return found


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    source = torch.empty((1 << 30 if device.type == "cuda" else 1 << 26) // 4, device=device).uniform_()
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, 0.3)


def processor() -> str:
    """Name of the processor and number of cores."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def report(
    device: torch.device, dtypes: list[torch.dtype], shapes: list[tuple[int, ...]], budget: float
) -> dict[str, Any]:
    """Measure everything and print the table as it grows."""
    peer, peer_version = load_peer() if device.type == "cuda" else (None, "not run on a CPU")
    speed = copy_bandwidth(device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    result: dict[str, Any] = {
        "machine": machine,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "clock": "CUDA events" if device.type == "cuda" else cpu_clock().__name__,
        "backend": describe(str(device)),
        "mlstm_kernels": peer_version,
        "copy_gb_per_s": speed / 1e9,
        "command": " ".join(["python -m xlstm_kernels.bench", *sys.argv[1:]]),
        "rows": [],
    }
    print({key: value for key, value in result.items() if key != "rows"})
    head = f"{'B x S x NH x DH':>20} {'dtype':>9} {'form':>14}"
    print(head + 2 * f" {'ms':>9} {'x ours':>8}" + f" {'x floor':>8} {'x floor':>8} {'peak MB':>8}")
    print(" " * len(head) + f" {'forward':>18} {'with backward':>18} {'forward':>8} {'both':>8}")
    for shape in shapes:
        for dtype in dtypes:
            data = inputs(shape, dtype, device)
            ours: dict[str, Any] = {}
            for name, cell in contenders(shape, device, peer):
                row = measure(name, cell, data, device, budget) | {"shape": shape, "dtype": str(dtype)}
                ours = ours or row
                for label, backward in (("forward", False), ("both", True)):
                    row[f"{label}_floor_ms"] = (
                        1e3 * floor_bytes(shape, data[0].element_size(), backward) / speed
                    )
                result["rows"].append(row)
                print(_line(row, ours), flush=True)
    return result


def layer_report(
    device: torch.device, dtypes: list[torch.dtype], maps: list[tuple[int, ...]], budget: float
) -> list[dict[str, Any]]:
    """Time the Vision-LSTM layer and a convolution of width 3 on the same map, without and with backward.

    Maps are given as (features, sides).
    """
    rows = []
    print("        sides features     dtype   conv ms  layer ms  ratio  with backward  ratio")
    for width, *sides in maps:
        flat = len(sides) == 2
        layout = torch.channels_last if flat else torch.channels_last_3d
        for dtype in dtypes:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                x = torch.randn(1, width, *sides, device=device, dtype=dtype)
                layer = random_layer(width, device)
                kind = torch.nn.Conv2d if flat else torch.nn.Conv3d
                conv = kind(width, width, 3, padding=1, device=device, dtype=dtype)
            x = x.contiguous(memory_format=layout)
            conv = conv.to(memory_format=layout)  # type: ignore[call-overload]
            row: dict[str, Any] = {"features": width, "sides": sides, "dtype": str(dtype)}
            for name, run in (
                ("conv", conv),
                ("layer", lambda y, w=layer: vil_layer(y.flatten(2).mT, w)),
            ):
                row |= {f"{name}_{key}": value for key, value in _both(run, x, device, budget).items()}
            rows.append(row)
            one, other = row["layer_ms"] / row["conv_ms"], row["layer_both_ms"] / row["conv_both_ms"]
            figures = f"{row['conv_ms']:9.2f} {row['layer_ms']:9.2f} {one:6.2f}"
            figures += f" {row['layer_both_ms']:14.2f} {other:6.2f}"
            place = "x".join(map(str, sides))
            print(f"{place:>13} {width:8} {str(dtype)[6:]:>9} {figures}", flush=True)
    return rows


def _both(
    run: Callable[[Tensor], Tensor], x: Tensor, device: torch.device, budget: float
) -> dict[str, float]:
    """Milliseconds of inference, and of forward with backward to the input and the weights."""
    leaf = x.detach().requires_grad_()

    def forward() -> object:
        with torch.inference_mode():
            return run(x)

    def both() -> object:
        return run(leaf).square().sum().backward()  # type: ignore[no-untyped-call]

    return {"ms": 1e3 * seconds(forward, device, budget), "both_ms": 1e3 * seconds(both, device, budget)}


def random_layer(width: int, device: torch.device) -> ViLWeights:
    """Weights of a layer as large as training leaves them, float32, that ask for gradients."""
    inner, heads = 2 * width, 4 if width % 4 == 0 else 2

    def normal(*shape: int, std: float, mean: float = 0.0) -> Tensor:
        return (torch.randn(shape, device=device) * std + mean).requires_grad_()

    q, k, v = (normal(inner // heads, heads, heads, std=0.7) for _ in range(3))
    i, f = (normal(heads, 3 * inner, std=0.3 * inner**-0.5) for _ in range(2))
    return ViLWeights(
        normal(width, std=0.1), normal(2 * inner, width, std=width**-0.5), normal(inner, 1, 4, std=0.5),
        normal(inner, std=0.1), q, k, v, i, normal(heads, std=0.1),
        f, normal(heads, std=1.0, mean=4.0),
        normal(inner, std=0.1), normal(inner, std=0.1, mean=1.0), normal(width, inner, std=inner**-0.5),
    )  # fmt: skip


def _line(row: dict[str, Any], ours: dict[str, Any]) -> str:
    def ratio(label: str, other: float) -> str:
        value = row.get(f"{label}_ms")
        return f"{value / other:8.2f}" if value and other else "       -"

    times = "".join(
        f" {row.get(f'{label}_ms', float('nan')):9.3f} {ratio(label, ours.get(f'{label}_ms', 0))}"
        for label in ("forward", "both")
    )
    floors = " ".join(ratio(label, row[f"{label}_floor_ms"]) for label in ("forward", "both"))
    error = row.get("forward_error", "") or row.get("both_error", "")
    name = f"{'x'.join(map(str, row['shape'])):>20} {row['dtype'][6:]:>9} {row['name']:>14}"
    return f"{name}{times} {floors} {row.get('both_mb', 0):8.1f} {error}"


def main(arguments: list[str] | None = None) -> int:
    """Run the measurements, or with ``--gpu-suite`` tests, memory checker and measurements on a GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", nargs="+", default=None, choices=["float32", "bfloat16", "float16"])
    parser.add_argument(
        "--shape", nargs="+", default=None, metavar="N,N", help="B,S,NH,DH; with --layers features,sides"
    )
    parser.add_argument("--threads", type=int, default=None, help="threads on a CPU")
    parser.add_argument("--seconds", type=float, default=0.2, help="time to spend on each measurement")
    parser.add_argument("--json", type=Path, default=None, help="file for the figures")
    parser.add_argument("--layers", action="store_true", help="the whole layer against a convolution instead")
    parser.add_argument("--gpu-suite", action="store_true", help="tests, memory checker and measurements")
    parser.add_argument("--cpu-targets", action="store_true", help="the targets of a CPU, 1 and 2 threads")
    parser.add_argument(
        "--minutes", type=float, default=120.0, help="time for either; what still runs then is stopped"
    )
    parser.add_argument(
        "--rehearse", action="store_true", help="every step of either, on a CPU, little of each"
    )
    chosen = parser.parse_args(arguments)
    if chosen.gpu_suite:
        from xlstm_kernels.suite import gpu_suite

        return gpu_suite(chosen.json, minutes=chosen.minutes, rehearse=chosen.rehearse)
    if chosen.cpu_targets:
        from xlstm_kernels.targets import cpu_targets

        return cpu_targets(chosen.json, minutes=chosen.minutes, rehearse=chosen.rehearse)
    if chosen.threads:
        torch.set_num_threads(chosen.threads)
    device = torch.device(chosen.device)
    names = chosen.dtype or (["bfloat16", "float32"] if device.type == "cuda" else ["float32"])
    usual = LAYERS if chosen.layers else GPU_SHAPES if device.type == "cuda" else CPU_SHAPES
    shapes: list[tuple[int, ...]] = [*usual]
    if chosen.shape:
        shapes = [tuple(map(int, text.split(","))) for text in chosen.shape]
    dtypes = [getattr(torch, name) for name in names]
    result = report(device, dtypes, [] if chosen.layers else shapes, chosen.seconds)
    if chosen.layers:
        result["rows"] = layer_report(device, dtypes, shapes, chosen.seconds)
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
