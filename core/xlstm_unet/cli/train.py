"""``xlstm-unet train``: make a model from images with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from xlstm_unet.cli.console import reporting
from xlstm_unet.cli.options import DeviceOption, JsonOption


def train(
    dataset: Annotated[
        Path, typer.Argument(help="Data set folder: images/ and labels/, or index.csv with zips.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder of the run; the model goes to <output>/<name>.")
    ],
    recipe: Annotated[
        str | None, typer.Option("--recipe", help="A recipe of this package, such as nuclei.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", help="A training configuration (TOML).")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Time budget.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps, instead of the configuration's.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model and write its bundle; a killed run goes on with --resume."""
    with reporting(as_json):
        pass
