"""``xlstm-unet models import | export``: models as files, from and for other places."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlstm_unet.cli.console import print_json, reporting, warn
from xlstm_unet.cli.options import JsonOption, YesOption, ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xlstm_unet.zoo.push import TravellingPatch


class ExportFormat(StrEnum):
    """What a model is written as."""

    ZIP = "zip"
    BIOIMAGEIO = "bioimageio"


def import_model(
    source: Annotated[
        Path,
        typer.Argument(help="A zip, a model's folder, or a results folder of the released code (nnU-Net)."),
    ],
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name to load the model by; its own by default.")
    ] = None,
    checkpoint: Annotated[
        str, typer.Option(help="nnU-Net: checkpoint file inside the folder or its fold folder.")
    ] = "checkpoint_final.pth",
    folds: Annotated[
        str | None,
        typer.Option(help="nnU-Net: folds to average, such as 0,2 or all; every numbered one by default."),
    ] = None,
    licence: Annotated[
        str, typer.Option(help="nnU-Net: licence of the weights as an SPDX identifier, where known.")
    ] = "other",
    as_json: JsonOption = False,
) -> None:
    """Import a model from a zip, a folder, or the released xLSTM-UNet code."""
    with reporting(as_json):
        from xlstm_unet.zoo.archive import import_archive, import_folder
        from xlstm_unet.zoo.bundle import SPEC

        extra = {}
        if source.is_dir() and (source / SPEC).exists():
            folder = import_folder(source, name)
        elif source.is_dir() or not source.exists():
            folder, found = _import_nnunet(source, name, checkpoint, folds, licence)
            extra = {"folds": found}
        else:
            folder = import_archive(source, name)
        if as_json:
            print_json({"name": folder.name, "folder": str(folder), **extra})
        else:
            details = f" (folds: {', '.join(extra['folds'])})" if extra else ""
            print(f"Imported as {folder.name}{details}: {folder}")


def _import_nnunet(
    source: Path, name: str | None, checkpoint: str, folds: str | None, licence: str
) -> tuple[Path, Sequence[str]]:
    from xlstm_unet.errors import ModelError
    from xlstm_unet.zoo import import_nnunet, write_bundle
    from xlstm_unet.zoo.card import CardFacts, model_card
    from xlstm_unet.zoo.store import own_folder

    if name is None:
        raise ModelError(f"A checkpoint has no name to load it by: {source}.", "Give one with --name.")
    target = own_folder(name)
    imported = import_nnunet(source, checkpoint, folds=folds.split(",") if folds else None)
    spec = type(imported.spec).model_validate(imported.spec.model_dump() | {"name": name})
    facts = CardFacts(data=f"Imported from {source.resolve().name}; see its authors.", licence=licence)
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
        raise ModelError(f"{source} was read but not stored: {error.message}", error.hint) from error
    return target, imported.folds


def export(
    model: Annotated[str, typer.Argument(help="Name of a model (see `models list`) or its folder.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; MODEL.zip here by default.")
    ] = None,
    kind: Annotated[
        ExportFormat,
        typer.Option("--format", "-f", help="zip for xLSTM-UNet, bioimageio for other software."),
    ] = ExportFormat.ZIP,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Whether pieces of images for fine-tuning go along.")
    ] = True,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a model to one file, to hand on or to use in other software."""
    with reporting(as_json):
        from xlstm_unet.zoo.archive import export_model
        from xlstm_unet.zoo.push import travelling_patches
        from xlstm_unet.zoo.store import find_model

        folder = find_model(model)
        if kind is ExportFormat.BIOIMAGEIO:
            from xlstm_unet.zoo.bioimageio import export_bioimageio

            target = export_bioimageio(folder, output or Path(f"{folder.name}.bioimageio.zip"))
        else:
            patches = travelling_patches(folder) if replay else ()
            if patches:
                print_patches(patches)
                ask(f"Write them into the zip, with {folder.name}?", yes)
            target = export_model(folder, output or Path(f"{folder.name}.zip"), replay=replay)
        size = target.stat().st_size
        if as_json:
            print_json({"file": str(target), "size_bytes": size})
        else:
            print(f"Wrote {target} ({size / 1e6:.1f} MB)")


def print_patches(patches: Sequence[TravellingPatch]) -> None:
    """List on stderr every piece of an image that would travel."""
    warn(f"{len(patches)} pieces of images travel in replay.npz (--no-replay leaves them out):")
    for patch in patches:
        size = " x ".join(str(n) for n in patch.shape[1:])
        modality = f", {patch.modality}" if patch.modality else ""
        warn(f"  {patch.id}{modality}: {size}, {patch.objects} labels ({patch.part})")
