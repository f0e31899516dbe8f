"""Models as the fronts show them: one description for what is here and what is on the Hub."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from xlstm_unet.errors import ModelNotFoundError
from xlstm_unet.zoo.bundle import CARD, FILE_LIMITS, MAX_TEXT_BYTES
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.catalogue import published
from xlstm_unet.zoo.hub import look_up, read_card, search, split_reference
from xlstm_unet.zoo.store import REPO_PATTERN, ModelEntry, find_entry, list_models
from xlstm_unet.zoo.untrusted import printable, read_text


def search_results(query: str = "", limit: int = 20) -> list[dict[str, Any]]:
    """Search the Hub; for each model also whether it is this project's, and its name here if it was fetched.

    Raises
    ------
    HubError
        If the Hub cannot be asked.
    """
    installed = {entry.source.repo: entry.name for entry in list_models() if entry.source is not None}
    ours = published()
    return [
        {**asdict(found), "published": found.repo in ours, "installed": installed.get(found.repo)}
        for found in search(query, limit)
    ]


def describe(reference: str) -> dict[str, Any]:
    """Describe a model here (by name or folder), or else one on the Hub (``owner/name[@revision]``).

    Of a model on the Hub nothing but the card is fetched.

    Raises
    ------
    ModelNotFoundError
        If there is no such model here and it can be none on the Hub.
    HubError
        If the Hub cannot be asked.
    """
    if "@" not in reference:
        try:
            return _here(find_entry(reference))
        except ModelNotFoundError:
            if not re.fullmatch(REPO_PATTERN, reference):
                raise
    return _on_the_hub(reference)


def _here(entry: ModelEntry) -> dict[str, Any]:
    card = ""
    if not entry.problem:
        card = read_text(entry.folder / CARD, MAX_TEXT_BYTES)
    return {
        "name": entry.name,
        "origin": entry.origin,
        "installed": entry.name,
        "folder": str(entry.folder),
        "licence": entry.licence,
        "card": printable(card),
        "size_bytes": entry.size_bytes,
        "files": {
            name: (entry.folder / name).stat().st_size
            for name in FILE_LIMITS
            if (entry.folder / name).is_file()
        },
        "scores": dict(entry.scores),
        "source": None if entry.source is None else entry.source.model_dump(),
        "pinned": entry.pinned,
        "gated": False,
        "problem": entry.problem,
        "spec": None if entry.spec is None else entry.spec.model_dump(mode="json"),
    }


def _on_the_hub(reference: str) -> dict[str, Any]:
    repo = split_reference(reference)[0]
    model = look_up(reference)
    here = next((e for e in list_models() if e.source is not None and e.source.repo == repo), None)
    card = read_card(model)
    parsed = CardText.parse(card)
    return {
        "name": repo,
        "origin": "hub",
        "installed": None if here is None else here.name,
        "folder": None,
        "licence": printable(model.licence or parsed.licence()),
        "card": printable(card),
        "size_bytes": model.size_bytes,
        "files": {file.name: file.size for file in model.files},
        "scores": {printable(name): value for name, value in parsed.scores().items()},
        "source": {"repo": repo, "revision": model.revision, "requested": model.requested},
        "pinned": False,
        "gated": model.gated,
        "problem": "",
        "spec": None,
    }
