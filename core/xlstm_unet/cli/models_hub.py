"""``xlstm-unet models search | show | get | push``: models on the Hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import interruptible, print_json, print_table, progress_bar, reporting, warn
from xlstm_unet.cli.options import JsonOption, YesOption, ask

if TYPE_CHECKING:
    from xlstm_unet.zoo.push import PushPlan

CARD_LINES = 40
"""Lines of a card that are shown before a model is fetched; `models show` shows all."""

Reference = Annotated[str, typer.Argument(metavar="OWNER/NAME[@REVISION]", help="A model on the Hub.")]


def search(
    query: Annotated[str, typer.Argument(help="Part of a name; all models when left out.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most models to list.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Search the Hub for models that can be used here."""
    with reporting(as_json):
        from xlstm_unet.zoo.show import search_results
        from xlstm_unet.zoo.untrusted import printable

        found = search_results(query, limit)
        if as_json:
            print_json({"models": found})
            return
        print_table(
            ("Model", "Licence", "Downloads", "Updated", "Here as"),
            [
                (
                    printable(model["repo"]) + (" (terms to accept)" if model["gated"] else ""),
                    printable(model["licence"]),
                    model["downloads"],
                    model["updated"],
                    model["installed"] or "",
                )
                for model in found
            ],
        )
        warn(
            "Fetch one with: xlstm-unet models get OWNER/NAME"
            if found
            else f"The Hub has no model for {query!r}."
        )


def show(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="Name of a model, or OWNER/NAME[@REVISION] on the Hub."),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a model: origin, licence, size, scores and its card."""
    with reporting(as_json):
        from xlstm_unet.zoo.show import describe

        facts = describe(model)
        if as_json:
            print_json(facts)
            return
        _print_facts(facts)
        print(f"\n{_body(facts['card'])}")


def get(
    model: Reference,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name to load it by; its repository's by default.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fetch a model from the Hub."""
    with reporting(as_json):
        from xlstm_unet.zoo.get import get_model
        from xlstm_unet.zoo.hub import LARGE_BYTES, look_up, read_card
        from xlstm_unet.zoo.untrusted import printable

        found = look_up(model)
        if not as_json:
            card = _body(printable(read_card(found))).splitlines()
            print("\n".join(card[:CARD_LINES]))
            if len(card) > CARD_LINES:
                print(f"... (all of it: xlstm-unet models show {model})")
        size = f"{found.size_bytes / 1e6:.1f} MB"
        licence = printable(found.licence) or "not stated"
        warn(f"{found.repo} at {found.revision[:12]}: {size}, licence {licence}")
        if found.size_bytes > LARGE_BYTES:
            ask(f"Fetch {size}?", yes)
        with interruptible() as cancel, progress_bar() as on_progress:
            got = get_model(
                found, name=name, max_bytes=found.size_bytes, on_progress=on_progress, cancel=cancel
            )
        entry = got.entry
        if as_json:
            source = None if entry.source is None else entry.source.model_dump()
            fields: dict[str, Any] = {"name": entry.name, "folder": str(entry.folder), "source": source}
            print_json({**fields, "size_bytes": entry.size_bytes, "already": got.already})
            return
        print(f"{'Already here' if got.already else 'Fetched'} as {entry.name}: {entry.folder}")
        print(f"Use it with: xlstm-unet segment IMAGES --model {entry.name} --output results")


def push(
    model: Annotated[str, typer.Argument(help="Name of a model (see `models list`) or its folder.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Where it goes on the Hub.")],
    public: Annotated[
        bool, typer.Option("--public", help="Make a new repository visible to everybody.")
    ] = False,
    replay: Annotated[
        bool, typer.Option("--replay/--no-replay", help="Whether pieces of images for fine-tuning go along.")
    ] = True,
    licence: Annotated[str, typer.Option(help="Licence of the weights as an SPDX identifier.")] = "",
    message: Annotated[str, typer.Option(help="What changed, for the Hub's history.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would travel.")] = False,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Publish a model on the Hub, with its card; says first what travels, and asks."""
    with reporting(as_json):
        from xlstm_unet.zoo.push import plan_push
        from xlstm_unet.zoo.push import push as send
        from xlstm_unet.zoo.store import find_model

        plan = plan_push(find_model(model), repo, private=not public, replay=replay, licence=licence)
        _print_plan(plan)
        fields: dict[str, Any] = {
            "repo": plan.repo,
            "files": plan.files,
            "licence": plan.licence,
            "patches": [
                {"part": p.part, "id": p.id, "modality": p.modality, "shape": p.shape} for p in plan.patches
            ],
            "notes": plan.notes,
        }
        if dry_run:
            if as_json:
                print_json({**fields, "card": plan.card})
            else:
                print(plan.card)
            return
        ask(f"Send this to {plan.repo}?", yes)
        result = send(plan, message)
        if as_json:
            print_json({**fields, "url": result.url, "revision": result.revision, "sha256": result.files})
        else:
            print(f"Published at {result.url} (revision {result.revision[:12]})")


def _print_plan(plan: PushPlan) -> None:
    from xlstm_unet.cli.models_share import print_patches

    kind = "update of" if plan.exists else "new private" if plan.private else "new PUBLIC"
    warn(f"{kind} {plan.repo}, from {plan.folder}, licence {plan.licence or 'not stated'}:")
    for name, size in plan.files.items():
        warn(f"  {name}: {size} bytes")
    if plan.patches:
        print_patches(plan.patches)
    for note in plan.notes:
        warn(f"Note: {note}")


def _print_facts(facts: dict[str, Any]) -> None:
    source = facts["source"]
    rows = {
        "Name": facts["name"],
        "Origin": facts["origin"],
        "Here as": facts["installed"] if facts["origin"] == "hub" else None,
        "From": f"{source['repo']}@{source['revision']}" if source else None,
        "Folder": facts["folder"],
        "Licence": facts["licence"] or "not stated",
        "Size": f"{facts['size_bytes'] / 1e6:.1f} MB",
        "Pinned": "yes" if facts["pinned"] else None,
        "Terms": "to be accepted on the Hub first" if facts["gated"] else None,
        "Damaged": facts["problem"] or None,
    }
    for name, value in rows.items():
        if value is not None:
            print(f"{name + ':':<9} {value}")


def _body(card: str) -> str:
    """A card without its front matter and marks, for people."""
    from xlstm_unet.zoo.card_text import FRONT, CardText

    parsed = CardText.parse(card)
    return str(CardText({name: text for name, text in parsed.parts.items() if name != FRONT}))
