"""All commands in one application; nothing heavy is imported before a command runs."""

from __future__ import annotations

from typing import Annotated

import typer

import xlstm_unet
from xlstm_unet.cli import demo, doctor, evaluate, evaluate_finetune, finetune, models, segment, study, train

app = typer.Typer(
    name="xlstm-unet",
    help="Segment biomedical images with xLSTM-UNet.",
    epilog="Exit codes: 0 done, 1 an error or a file that failed, 2 wrong usage, 130 cancelled.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(segment.segment)
app.command()(evaluate.evaluate)
app.command()(evaluate_finetune.evaluate_finetune)
app.command()(finetune.finetune)
app.command()(train.train)
app.add_typer(models.app, name="models")
app.add_typer(study.app, name="study")
app.command()(demo.demo)
app.command()(doctor.doctor)


@app.command()
def worker() -> None:
    """Serve a front on stdin and stdout: what napari and 3D Slicer start, here or through ssh."""
    from xlstm_unet.worker.server import main

    main()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"xlstm-unet {xlstm_unet.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Segment biomedical images with xLSTM-UNet."""
