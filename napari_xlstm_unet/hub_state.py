"""State of the window "Models": what is here, what a search found, and what is being fetched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

from psygnal import SignalGroupDescriptor


@dataclass(frozen=True)
class HubModel:
    """A model that a search found.

    Parameters
    ----------
    repo
        ``owner/name``.
    installed
        Its name here; empty if it has not been fetched.
    """

    repo: str
    licence: str
    downloads: int
    updated: str
    gated: bool
    published: bool
    installed: str

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> HubModel:
        """Read one result of a search."""
        return cls(
            repo=reply["repo"],
            licence=reply["licence"] or "",
            downloads=reply["downloads"] or 0,
            updated=str(reply["updated"] or ""),
            gated=bool(reply["gated"]),
            published=bool(reply["published"]),
            installed=reply["installed"] or "",
        )


@dataclass(frozen=True)
class Card:
    """What is known of one model, here or on the Hub.

    Parameters
    ----------
    name
        Name here, or ``owner/name``.
    facts
        Size, licence, origin and place, in words.
    text
        The model card, Markdown without its front matter.
    size_bytes
        Of the files to fetch.
    """

    name: str
    facts: str
    text: str
    size_bytes: int = 0
    on_hub: bool = False

    @classmethod
    def of(cls, reply: Mapping[str, Any]) -> Card:
        """Read a description."""
        size = reply["size_bytes"] or 0
        facts = [f"{size / 1e6:.1f} MB", f"licence: {reply['licence'] or 'not stated'}"]
        if reply["source"] and reply["source"].get("revision"):
            facts.append(f"{reply['source']['repo']} at {reply['source']['revision'][:8]}")
        facts += [f"{name}: {value:.3f}" for name, value in list((reply["scores"] or {}).items())[:2]]
        if reply["gated"]:
            facts.append("its owner asks you to accept terms first")
        if reply["folder"]:
            facts.append(reply["folder"])
        return cls(
            reply["name"],
            " · ".join(facts),
            without_front_matter(reply["card"] or reply.get("problem") or ""),
            size,
            reply["origin"] == "hub",
        )


class HubPhase(StrEnum):
    """What the window is waiting for."""

    IDLE = "idle"
    SEARCHING = "searching"
    FETCHING = "fetching"
    CANCELLING = "cancelling"


@dataclass
class HubState:
    """The window "Models"."""

    events: ClassVar[SignalGroupDescriptor] = SignalGroupDescriptor()

    phase: HubPhase = HubPhase.IDLE
    results: tuple[HubModel, ...] = ()
    card: Card | None = None
    status: str = ""
    progress: float = 0.0
    fetching: str = ""


def without_front_matter(card: str) -> str:
    """Return a card without the lines between the first two ``---``."""
    lines = card.splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return card
    return "\n".join(lines[lines.index("---", 1) + 1 :]).strip()
