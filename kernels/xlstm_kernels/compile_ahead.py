"""Compile the Triton kernels for a GPU that need not be here, and report registers, spills and shared memory.

``python -m xlstm_kernels.compile_ahead cuda:90`` (or ``cuda:80``, ``hip:gfx942``); ``--quick`` takes the
width that is asked most of in either dtype. Fails where a kernel does not compile or goes over a bound:
`SPILLS`, `REGISTERS`, `SHARED`.
"""

from __future__ import annotations

import argparse
import inspect
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from xlstm_kernels import triton_backward, triton_forward, triton_launch, triton_layer, triton_quadratic
from xlstm_kernels.triton_launch import SCAN_BLOCK, plan, quadratic_plan
from xlstm_kernels.triton_layer_launch import WARPS, layer_plan

SPILLS = {"cuda:90": (256, 768), "cuda:80": (256, 4096), "hip:gfx942": (64, 64)}
"""Bytes that a thread may spill, with tokens of 16 bit and with float32: what the worst kernel needs at any
width, rounded up. In float32 that is the widest heads (over 128), multiplied without matrix units."""

REGISTERS = {"cuda": 65536 // 32, "hip": 65536 * 4 // 64}
"""Registers of a multiprocessor by the threads that it runs as one: a program has to fit."""

SHARED = {"cuda:90": 232448, "cuda:80": 166912, "hip:gfx942": 65536}
"""Bytes of shared memory that one program can have."""

WIDTHS = (16, 32, 64, 128, 160, 256)
LONGEST = 1024
"""Tokens that the quadratic kernels' gates are scanned in at a time, at most."""

DTYPES = {torch.bfloat16: "bf16", torch.float32: "fp32"}
FLOAT32 = {
    "m_ptr", "s_ptr", "delta_ptr", "i_ptr", "f_ptr", "state_ptr", "start_ptr", "level_ptr", "grad_ptr",
    "decay_ptr", "row_ptr", "column_ptr", "step_ptr", "shifted_ptr", "whole_ptr", "part_ptr", "before_ptr",
    "after_ptr",
    "conv_ptr", "bias_ptr", "wq_ptr", "wk_ptr", "wv_ptr", "ga_ptr", "gm_ptr", "gb_ptr", "outnorm_ptr",
    "skip_ptr", "da_ptr", "dm_ptr", "dgates_ptr", "doutnorm_ptr", "dskip_ptr", "dconv_ptr", "dbias_ptr",
}  # fmt: skip


def kernels(module: ModuleType) -> dict[str, Any]:
    """Kernels of a module by name, without the functions they call."""
    return {name: x for name, x in vars(module).items() if name.startswith(("mlstm_", "layer_"))}


def compile_kernel(kernel: Any, shape: tuple[int, ...], dtype: torch.dtype, target: GPUTarget) -> Any:
    """Compile one kernel as `triton_launch` would launch it for tokens of this shape."""
    name = kernel.fn.__name__
    like, backward = torch.empty(shape, dtype=dtype, device="meta"), "_bwd_" in name
    p = plan(like, "ieee", backward=backward)
    narrow = name.endswith("_qk")
    layer = layer_plan(shape[2] * shape[3], shape[2])
    values = {
        "DK": p.tile if narrow else p.wide,
        "DV": p.wide if narrow else p.tile,
        "REVERSE": False,
        "STARTS": True,
        "WITH_DV": p.tiles == 1,
        "BLOCK": SCAN_BLOCK,
        "E": layer.features,
        "D": layer.head,
        "T": layer.head_span if name.endswith("_gate") else layer.span,
        **p.options,
    }
    options = {"num_warps": p.options["num_warps"], "num_stages": p.options["num_stages"]}
    if name.startswith("layer_"):
        values["HEADS"] = shape[2]
        options = {"num_warps": WARPS}
    elif "_quad_" in name:
        values |= {**quadratic_plan(like, "ieee", False, backward=backward).tokens, "LENGTH": LONGEST}
        options = {key: values[key] for key in options}
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(inspect.signature(kernel.fn).parameters):
        if parameter in values:
            signature[parameter], constants[parameter] = "constexpr", values[parameter]
        elif re.fullmatch(
            r"s\w_d", parameter
        ):  # features lie side by side: Triton specialises on a stride of 1
            signature[parameter], constants[parameter] = "constexpr", 1
        elif parameter.endswith("_ptr"):
            signature[parameter] = "*fp32" if parameter in FLOAT32 else f"*{DTYPES[dtype]}"
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[parameter] = "fp32" if parameter == "scale" else "i32"
            if re.fullmatch(r"s[qkvg]_[bsh]|SIZE|WIDTH|INNER|JOINED", parameter):
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attributes)
    return triton.compile(source, target=target, options=options)


def resources(compiled: Any, target: GPUTarget) -> dict[str, int]:
    """Registers, spilled bytes and shared memory of a compiled kernel."""
    found = {"shared": int(compiled.metadata.shared)}
    if target.backend == "cuda":
        binary = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
        arch = f"sm_{target.arch}{'a' if target.arch == 90 else ''}"
        with tempfile.TemporaryDirectory() as folder:
            ptx = Path(folder) / "kernel.ptx"
            ptx.write_text(compiled.asm["ptx"])
            command = [
                str(binary),
                "-v",
                f"--gpu-name={arch}",
                str(ptx),
                "-o",
                str(ptx.with_suffix(".cubin")),
            ]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        registers, spills = (
            re.search(r"Used (\d+) registers", report),
            re.search(r"(\d+) bytes spill stores", report),
        )
        found |= {
            "registers": int(registers[1]) if registers else -1,
            "spills": int(spills[1]) if spills else -1,
        }
    else:
        registers, spills = (
            re.search(pattern, compiled.asm["amdgcn"])
            for pattern in (r"\.vgpr_count:\s*(\d+)", r"\.vgpr_spill_count:\s*(\d+)")
        )
        found |= {
            "registers": int(registers[1]) if registers else -1,
            "spills": 4 * int(spills[1]) if spills else -1,
        }
    return found


def excess(found: dict[str, int], warps: int, dtype: torch.dtype, target: str) -> list[str]:
    """Which bounds a kernel goes over, in words."""
    bounds = {
        "spills": SPILLS[target][dtype == torch.float32],
        "registers": REGISTERS[target.split(":")[0]] // warps,
        "shared": SHARED[target],
    }
    return [
        f"{key} over {bound}" if found[key] > bound else f"{key} unknown"
        for key, bound in bounds.items()
        if not 0 <= found[key] <= bound
    ]


def main(arguments: list[str] | None = None) -> int:
    """Compile all kernels for the target on the command line; 1 where any goes over a bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=list(SHARED))
    parser.add_argument("--quick", action="store_true", help="the widest heads only")
    parser.add_argument("--width", type=int, nargs="+", default=WIDTHS, help="head widths")
    parser.add_argument("--only", default="", metavar="PREFIX", help="kernels whose names begin so")
    chosen = parser.parse_args(arguments)
    backend, arch = chosen.target.split(":")
    target = GPUTarget(backend, int(arch) if backend == "cuda" else arch, 32 if backend == "cuda" else 64)
    triton_launch.WAVE = target.warp_size
    over = 0
    modules = (triton_forward, triton_backward, triton_quadratic, triton_layer)
    found = {name: kernel for module in modules for name, kernel in kernels(module).items()}
    print(f"{'kernel':28} {'dtype':5} {'width':>5} {'registers':>9} {'spills':>6} {'shared':>7}")
    for width in (max(WIDTHS),) if chosen.quick else chosen.width:
        shape = (1, 4096, 4, width)
        for dtype, label in DTYPES.items():
            for name, kernel in found.items():
                if not name.startswith(chosen.only):
                    continue
                like = torch.empty(shape, dtype=dtype, device="meta")
                if name.endswith("kernel_v") and plan(like, "ieee", backward=True).tiles == 1:
                    continue
                compiled = compile_kernel(kernel, shape, dtype, target)
                r = resources(compiled, target)
                too_much = excess(r, compiled.metadata.num_warps, dtype, chosen.target)
                over += bool(too_much)
                figures = f"{r['registers']:9} {r['spills']:6} {r['shared']:7}"
                print(f"{name:28} {label:5} {width:5} {figures} {', '.join(too_much)}", flush=True)
    print(f"{over} over their bounds")
    return int(over > 0)


if __name__ == "__main__":
    sys.exit(main())
