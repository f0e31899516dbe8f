"""``xlstm-unet evaluate-finetune``: what corrections bring, measured with simulated people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xlstm_unet.cli.console import interruptible, print_json, progress_bar, reporting
from xlstm_unet.cli.evaluate import SplitChoice
from xlstm_unet.cli.options import DeviceOption, JsonOption, OutputOption


def evaluate_finetune(
    config: Annotated[
        str,
        typer.Argument(
            help="Protocol (TOML), or one of this package: hard, mild, object, same, scanner, thick."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder that holds the data sets.")],
    output: OutputOption,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Root model instead of the protocol's.")
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Simulated users.")] = None,
    arms: Annotated[str | None, typer.Option(help="Arms, with commas; the first is ours.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of a fine-tuning.")] = None,
    budget: Annotated[float | None, typer.Option(min=1, help="Seconds of a fine-tuning.")] = None,
    split: Annotated[
        SplitChoice | None, typer.Option(help="Score this split instead of the protocol's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU.")] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Simulate people who correct a model's errors, fine-tune on them, and score what comes out.

    Started again it keeps finished runs and goes on with the others. Writes finetune.json, finetune.md and
    finetune.png: score against corrections and seconds, mean and standard deviation over the users.
    """
    if steps is not None and budget is not None:
        raise typer.BadParameter("Give either --steps or --budget.")
    with reporting(as_json), interruptible() as cancel:
        import torch

        from xlstm_unet.study.finetune import evaluate_finetune as evaluate
        from xlstm_unet.study.finetune_config import Protocol
        from xlstm_unet.study.report import jsonable

        protocol = Protocol.read(config).adapted(
            model=model,
            users=users,
            arms=None if arms is None else arms.split(","),
            steps=steps,
            budget=budget,
        )
        if split is not None:
            protocol = protocol.scored_on(split.value)
        if threads is not None:
            torch.set_num_threads(threads)
        with progress_bar() as show:
            result = evaluate(protocol, data, output, device=device, on_progress=show, cancel=cancel)
        if as_json:
            print_json(jsonable(result))
        else:
            print((output / "finetune.md").read_text(encoding="utf-8"))
