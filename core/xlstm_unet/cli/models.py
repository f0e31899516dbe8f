"""``xlstm-unet models``: the models that there are here, and what can be done with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli import models_hub, models_share
from xlstm_unet.cli.console import print_json, print_table, reporting, warn
from xlstm_unet.cli.options import JsonOption, YesOption, ask

if TYPE_CHECKING:
    from xlstm_unet.zoo import ModelEntry

NameArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of a model (see `models list`).")]

app = typer.Typer(help="Find, fetch, keep and share models.", no_args_is_help=True)


@app.command("list")
def list_all(as_json: JsonOption = False) -> None:
    """List the embedded models, those that were fetched, and your own."""
    with reporting(as_json):
        from xlstm_unet.zoo import list_models

        entries = list_models()
        if as_json:
            print_json({"models": [_fields(entry) for entry in entries]})
            return
        print_table(
            ("Name", "Origin", "Finds", "Images", "Score", "MB", "Folder"),
            [
                (
                    e.name,
                    _origin(e),
                    _finds(e),
                    _takes(e),
                    _score(e),
                    round(e.size_bytes / 1e6, 1),
                    str(e.folder),
                )
                for e in entries
            ],
        )
        for entry in entries:
            if entry.problem:
                warn(f"{entry.name} is damaged: {entry.problem}")


app.command("search")(models_hub.search)
app.command("get")(models_hub.get)
app.command("show")(models_hub.show)
app.command("import")(models_share.import_model)
app.command("export")(models_share.export)
app.command("push")(models_hub.push)


@app.command()
def rename(
    model: NameArgument,
    new_name: Annotated[str, typer.Argument(help="Its new name.")],
    as_json: JsonOption = False,
) -> None:
    """Give one of your models another name."""
    with reporting(as_json):
        from xlstm_unet.zoo.manage import rename_model

        folder = rename_model(model, new_name)
        if as_json:
            print_json({"name": folder.name, "folder": str(folder)})
        else:
            print(f"{model} is now {folder.name}: {folder}")


@app.command()
def pin(
    model: NameArgument,
    off: Annotated[bool, typer.Option("--off", help="Let it go again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Hold a model as it is: while pinned it is neither updated nor removed."""
    with reporting(as_json):
        from xlstm_unet.zoo.manage import pin_model

        entry = pin_model(model, not off)
        if as_json:
            print_json({"name": entry.name, "pinned": entry.pinned})
        else:
            print(f"{entry.name} is {'pinned' if entry.pinned else 'no longer pinned'}.")


@app.command()
def remove(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Names of models.")],
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove models that were fetched or made here, with what the Hub's cache holds of them."""
    with reporting(as_json):
        from xlstm_unet.zoo.manage import remove_model
        from xlstm_unet.zoo.store import find_entry

        entries = [find_entry(name) for name in models]
        for entry in entries:
            warn(f"{entry.name} ({_origin(entry)}): {entry.size_bytes / 1e6:.1f} MB in {entry.folder}")
        made_here = [entry.name for entry in entries if entry.origin == "own"]
        question = f"Remove {', '.join(entry.name for entry in entries)}?"
        if made_here:
            question += f" Nothing brings back {', '.join(made_here)}."
        ask(question, yes)
        freed = {entry.name: remove_model(entry.name) for entry in entries}
        if as_json:
            print_json({"removed": freed, "freed_bytes": sum(freed.values())})
        else:
            print(f"Removed {', '.join(freed)}; {sum(freed.values()) / 1e6:.1f} MB are free again.")


def _fields(entry: ModelEntry) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "name": entry.name,
        "origin": entry.origin,
        "folder": str(entry.folder),
        "size_bytes": entry.size_bytes,
        "licence": entry.licence,
        "scores": dict(entry.scores),
        "source": None if entry.source is None else entry.source.model_dump(),
        "pinned": entry.pinned,
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


def _origin(entry: ModelEntry) -> str:
    text = f"{entry.source.repo}@{entry.source.revision[:7]}" if entry.source else entry.origin
    return f"{text}, pinned" if entry.pinned else text


def _score(entry: ModelEntry) -> str:
    """The first score of the card, which is its main one."""
    return next((f"{value:.3f} {name}" for name, value in entry.scores.items()), "")


def _finds(entry: ModelEntry) -> str:
    return ", ".join(label.name for label in entry.spec.labels) if entry.spec else "damaged"


def _takes(entry: ModelEntry) -> str:
    if entry.spec is None:
        return ""
    channels = entry.spec.input_channels
    return f"{entry.spec.dimension}D, {channels} channel{'s' if channels > 1 else ''}"
