"""A model card taken apart: what can be read from it, and a new one that keeps what its user has written.

A generated card ends with a comment that holds a digest of each of its parts. A part that still has its
digest is the program's and may be written anew; any other part is the user's.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

FRONT, LEAD = "front matter", "introduction"
"""Names of the parts that have no heading of their own."""

_MARK, _MARK_END = "<!-- xlstm-unet wrote: ", " -->"
_NUMBER = re.compile(r"-?\d{1,12}(\.\d{1,12})?")


@dataclass(frozen=True)
class CardText:
    """A card in parts.

    Parameters
    ----------
    parts
        Text by name, in order: `FRONT` (without its lines ``---``), `LEAD`, then the headings of level 2.
    digests
        Digest by name of each part as the program wrote it.
    """

    parts: Mapping[str, str]
    digests: Mapping[str, str] = field(default_factory=dict)

    def is_users(self, name: str) -> bool:
        """Whether a part is the user's: changed, removed or written since the program wrote the card."""
        return self.digests.get(name) != _digest(self.parts.get(name))

    def __str__(self) -> str:
        """Return the card, with its digests."""
        texts = [_written(name, text) for name, text in self.parts.items()]
        mark = f"{_MARK}{json.dumps(dict(self.digests))}{_MARK_END}\n" if self.digests else ""
        return "\n\n".join(text for text in (*texts, mark) if text).rstrip("\n") + "\n"

    @classmethod
    def written(cls, parts: Mapping[str, str]) -> CardText:
        """Make a card of which every part is the program's."""
        parts = {name: text.strip("\n") for name, text in parts.items()}
        return cls(parts, {name: str(_digest(text)) for name, text in parts.items()})

    @classmethod
    def parse(cls, text: str) -> CardText:
        """Take a card apart; any text is a card."""
        text, mark, end = text.rpartition(_MARK) if _MARK in text else (text, "", "")
        digests = _digests(end.rstrip().removesuffix(_MARK_END)) if mark else {}
        parts: dict[str, str] = {}
        if text.startswith("---\n") and (close := f"\n{text[4:]}".find("\n---\n")) >= 0:
            parts[FRONT], text = text[4 : 4 + close], text[4 + close + 4 :]
        name, lines, fenced = LEAD, list[str](), False
        for line in text.splitlines():
            fenced ^= line.lstrip().startswith("```")
            if line.startswith("## ") and not fenced:
                _add(parts, name, lines)
                name, lines = line[3:].strip(), []
            else:
                lines.append(line)
        _add(parts, name, lines)
        return cls(parts, digests)

    def front(self) -> dict[str, Any]:
        """Return the fields of the front matter that stand on one line each."""
        fields = {}
        for line in self.parts.get(FRONT, "").splitlines():
            name, colon, value = line.partition(": ")
            if colon and not name.startswith((" ", "-", "#")):
                fields[name.strip()] = _plain(value.strip())
        return fields

    def licence(self) -> str:
        """Return the licence that the front matter names; empty where it names none."""
        licence = self.front().get("license", "")
        return licence if isinstance(licence, str) else ""

    def scores(self) -> dict[str, float]:
        """Return the rows of numbers under "Scores"."""
        found = {}
        for line in self.parts.get("Scores", "").splitlines():
            cells = [cell.strip() for cell in line.strip().split("|")]
            if len(cells) == 4 and not cells[0] and not cells[3] and _NUMBER.fullmatch(cells[2]):
                found[cells[1]] = float(cells[2])
        return found

    def summary(self) -> str:
        """Return the first paragraph under the title."""
        paragraphs = [part.strip() for part in self.parts.get(LEAD, "").split("\n\n")]
        return next((part for part in paragraphs if part and not part.startswith(("#", "-", "<", "!["))), "")


def merge(users: CardText, fresh: CardText, renew: Collection[str]) -> CardText:
    """Bring a card up to date without touching what its user has written.

    Parameters
    ----------
    users
        The card as it stands.
    fresh
        The card as the program would write it now.
    renew
        Parts of which ``fresh`` knows better than an unchanged part of ``users``. Other parts are only added
        where they never were.
    """
    parts = dict(users.parts)
    digests = dict(users.digests)
    for name, text in fresh.parts.items():
        untouched = name in parts and not users.is_users(name)
        never_there = name not in parts and name not in users.digests
        if never_there or (untouched and name in renew):
            parts[name] = text
            digests[name] = str(_digest(text))
    order = _order(list(users.parts), list(fresh.parts))
    return CardText({name: parts[name] for name in order if name in parts}, digests)


def _order(old: list[str], fresh: list[str]) -> list[str]:
    """Names of both; those that only ``fresh`` has come after what they follow there."""
    order = list(old)
    for index, name in enumerate(fresh):
        if name not in order:
            before = [order.index(other) for other in fresh[:index] if other in order]
            order.insert(max(before) + 1 if before else 0, name)
    return order


def _add(parts: dict[str, str], name: str, lines: list[str]) -> None:
    text = "\n".join(lines).strip("\n")
    if name in parts:
        parts[name] += f"\n\n{text}"
    elif text or name != LEAD:
        parts[name] = text


def _written(name: str, text: str) -> str:
    if name == FRONT:
        return f"---\n{text.rstrip()}\n---"
    return text if name == LEAD else f"## {name}\n\n{text}".rstrip()


def _digest(text: str | None) -> str | None:
    if text is None:
        return None
    return hashlib.sha256(" ".join(text.split()).encode("utf-8", "replace")).hexdigest()[:12]


def _digests(text: str) -> dict[str, str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: digest for name, digest in found.items() if isinstance(digest, str)}


def _plain(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value.strip("'\"")
