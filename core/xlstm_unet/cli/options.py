"""Options that several commands share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from xlstm_unet.errors import CancelledError, ConfirmationError

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Name of a model (see `models list`) or its folder.")
]
OutputOption = Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")]
DeviceOption = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda, cuda:1 or mps.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Agree to what would be asked.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DiameterOption = Annotated[
    float | None,
    typer.Option("--diameter", help="Diameter of the objects in pixels; the model's own when not given."),
]
TileOption = Annotated[
    str | None, typer.Option("--tile", help="Tile size, one number or one an axis: 512 or 64,128,128.")
]
MirrorOption = Annotated[
    bool | None,
    typer.Option(
        "--mirror/--no-mirror",
        help="Average over mirrored copies: slower, a little better; as the model says when not given.",
    ),
]
AxesOption = Annotated[
    str | None, typer.Option("--axes", help="Meaning of the array's axes, such as ZYX, CYX or YXC.")
]


def parse_tile(text: str | None) -> int | tuple[int, ...] | None:
    """Return the tile size that ``--tile`` says.

    Raises
    ------
    typer.BadParameter
        If it is no list of positive numbers.
    """
    if text is None:
        return None
    parts = text.replace("x", ",").split(",")
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts) or len(parts) > 3:
        raise typer.BadParameter(f"{text!r} is not a size such as 512 or 64,128,128", param_hint="--tile")
    return int(parts[0]) if len(parts) == 1 else tuple(int(part) for part in parts)


def ask(question: str, yes: bool) -> None:
    """Ask on the terminal and go on only if the answer is yes.

    Raises
    ------
    ConfirmationError
        If there is nobody to ask.
    CancelledError
        If the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfirmationError(f"{question} Nobody can be asked here.", "Add --yes to agree.")
    if not typer.confirm(question, err=True):
        raise CancelledError
