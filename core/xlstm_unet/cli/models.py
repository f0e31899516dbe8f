"""``xlstm-unet models``: what models there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import print_json, print_table, reporting, warn
from xlstm_unet.cli.options import JsonOption

if TYPE_CHECKING:
    from xlstm_unet.zoo import ModelEntry

app = typer.Typer(help="List and import models.", no_args_is_help=True)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List the embedded models and your own."""
    with reporting(as_json):
        from xlstm_unet.zoo import list_models

        entries = list_models()
        if as_json:
            print_json({"models": [_fields(entry) for entry in entries]})
            return
        print_table(
            ("Name", "Origin", "Finds", "Images", "MB", "Folder"),
            [
                (e.name, e.origin, _finds(e), _takes(e), round(e.size_bytes / 1e6, 1), str(e.folder))
                for e in entries
            ],
        )
        for entry in entries:
            if entry.problem:
                warn(f"{entry.name} is damaged: {entry.problem}")


@app.command("import")
def import_checkpoint(
    folder: Annotated[Path, typer.Argument(help="Results folder of the released code (nnU-Net layout).")],
    name: Annotated[str, typer.Option("--name", "-n", help="Name to load the model by.")],
    checkpoint: Annotated[
        str, typer.Option(help="Checkpoint file inside the folder or its fold folder.")
    ] = "checkpoint_final.pth",
    folds: Annotated[
        str | None,
        typer.Option(help="Folds to average, such as 0,2 or all; every numbered one by default."),
    ] = None,
    licence: Annotated[
        str, typer.Option(help="Licence of the weights as an SPDX identifier, where known.")
    ] = "other",
    as_json: JsonOption = False,
) -> None:
    """Import a checkpoint of the released xLSTM-UNet code into your own models."""
    with reporting(as_json):
        from xlstm_unet.errors import ModelError
        from xlstm_unet.zoo import import_nnunet, write_bundle
        from xlstm_unet.zoo.card import CardFacts, model_card
        from xlstm_unet.zoo.store import own_folder

        target = own_folder(name)
        imported = import_nnunet(folder, checkpoint, folds=folds.split(",") if folds else None)
        spec = type(imported.spec).model_validate(imported.spec.model_dump() | {"name": name})
        facts = CardFacts(data=f"Imported from {folder.resolve().name}; see its authors.", licence=licence)
        try:
            write_bundle(
                target,
                spec,
                imported.network,
                card=model_card(spec, facts),
                licence=f"The weights keep the licence of where they came from: {licence}.\n",
                dtype="float32",
            )
        except ModelError as error:
            raise ModelError(f"{folder} was read but not stored: {error.message}", error.hint) from error
        if as_json:
            print_json({"name": name, "folder": str(target), "folds": imported.folds})
        else:
            print(f"Imported as {name} (folds: {', '.join(imported.folds)}): {target}")


def _fields(entry: ModelEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": entry.name,
        "origin": entry.origin,
        "folder": str(entry.folder),
        "size_bytes": entry.size_bytes,
    }
    if entry.spec is None:
        return {**fields, "problem": entry.problem}
    spec = entry.spec
    return {
        **fields,
        "description": spec.description,
        "dimension": spec.dimension,
        "task": spec.task,
        "input_channels": spec.input_channels,
        "labels": [label.name for label in spec.labels],
    }


def _finds(entry: ModelEntry) -> str:
    return ", ".join(label.name for label in entry.spec.labels) if entry.spec else "damaged"


def _takes(entry: ModelEntry) -> str:
    if entry.spec is None:
        return ""
    channels = entry.spec.input_channels
    return f"{entry.spec.dimension}D, {channels} channel{'s' if channels > 1 else ''}"
