"""Publishing a model on the Hub: what would travel, and sending it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from xlstm_unet.errors import BundleError, HubMissingError
from xlstm_unet.zoo.bundle import CARD, FILE_LIMITS, LICENCE, REPLAY, Bundle, read_bundle, read_replay
from xlstm_unet.zoo.card import TAG, CardFacts, card_parts
from xlstm_unet.zoo.card_text import FRONT, LEAD, CardText, merge
from xlstm_unet.zoo.hub import look_up, read_card, split_reference
from xlstm_unet.zoo.hub_library import endpoint, explained, hub_library
from xlstm_unet.zoo.record import Pushed, read_record, write_record
from xlstm_unet.zoo.store import user_models_folder

_RENEWED = (FRONT, LEAD, "Use")
"""Parts of a card that follow from the specification alone."""


@dataclass(frozen=True)
class TravellingPatch:
    """One piece of an image that goes with a model.

    Parameters
    ----------
    part
        ``train`` or ``check``.
    id, modality
        The sample that it was cut from.
    shape
        (C, *spatial) in voxels.
    objects
        Number of labels in it.
    """

    part: str
    id: str
    modality: str
    shape: tuple[int, ...]
    objects: int


@dataclass(frozen=True)
class PushPlan:
    """What would travel; nothing has been sent.

    Parameters
    ----------
    folder
        The model.
    repo
        Where it would go.
    private
        Whether a new repository would be visible to its owner alone; one that exists keeps what it has.
    exists
        Whether the repository exists.
    licence
        As the card names it.
    card
        Text of the card as it would be published.
    files
        Bytes by name.
    patches
        Every piece of an image in the replay pack that would go.
    notes
        What the user should know.
    parent
        Revision that this follows; empty for a new repository.
    """

    folder: Path
    repo: str
    private: bool
    exists: bool
    licence: str
    card: str
    files: dict[str, int]
    patches: tuple[TravellingPatch, ...]
    notes: tuple[str, ...]
    parent: str


@dataclass(frozen=True)
class PushResult:
    """What was sent.

    Parameters
    ----------
    url
        Where it can be seen.
    revision
        Commit.
    files
        SHA-256 by name.
    """

    url: str
    revision: str
    files: dict[str, str]


def plan_push(
    folder: Path, repo: str, *, private: bool = True, replay: bool = True, licence: str = ""
) -> PushPlan:
    """Find out what publishing a model would send; the Hub is asked for the card that is there, if any.

    Parameters
    ----------
    folder
        The model.
    repo
        ``owner/name``.
    private
        Whether a new repository shall be visible to its owner alone.
    replay
        Whether its replay pack, which holds pieces of images, shall go too.
    licence
        Of the weights, as an SPDX identifier; what the card says when empty.

    Raises
    ------
    BundleError
        If the model is damaged.
    HubError
        If the Hub cannot be asked.
    """
    repo, revision = split_reference(repo)
    if revision is not None:
        raise HubMissingError(f"A push goes to {repo} itself.", "Leave out what follows the @.")
    bundle = read_bundle(folder)
    theirs, parent, notes = _on_the_hub(repo)
    card, conflicts = published_card(bundle, theirs, licence)
    notes += [f"{name}: your text replaces the one on the Hub, which was changed too." for name in conflicts]
    files = {name: (folder / name).stat().st_size for name in FILE_LIMITS if (folder / name).is_file()}
    files[CARD] = len(card.encode("utf-8"))
    if not replay:
        files.pop(REPLAY, None)
    if LICENCE not in files:
        notes.append("There is no LICENSE file: say in the card what others may do with the model.")
    found = CardText.parse(card).licence()
    if found in ("", "other"):
        notes.append("The card names no known licence: others cannot tell what they may do with the model.")
    return PushPlan(
        folder=folder,
        repo=repo,
        private=private,
        exists=bool(parent),
        licence=found,
        card=card,
        files=files,
        patches=travelling_patches(folder) if replay else (),
        notes=tuple(notes),
        parent=parent,
    )


def travelling_patches(folder: Path) -> tuple[TravellingPatch, ...]:
    """List every piece of an image that goes with the model in ``folder``.

    Raises
    ------
    BundleError
        If its replay pack is damaged.
    """
    pack = read_replay(folder)
    if pack is None:
        return ()
    return tuple(
        TravellingPatch(part, p.id, p.modality, p.image.shape, len(set(p.labels[p.labels > 0].tolist())))
        for part, patches in (("train", pack.train), ("check", pack.check))
        for p in patches
    )


def published_card(bundle: Bundle, theirs: str = "", licence: str = "") -> tuple[str, list[str]]:
    """Return the card to publish, and the parts that were changed both here and on the Hub (ours stay).

    What follows from the specification is written anew; what a person wrote, here or there, is kept.
    """
    ours = CardText.parse(bundle.card)
    front = ours.front()
    facts = CardFacts(
        data="Not stated.",
        licence=licence or ours.licence() or "other",
        scores=ours.scores(),
        base_model=str(front.get("base_model", "")),
    )
    card = merge(ours, card_parts(bundle.spec, facts, own_scores=False), _RENEWED)
    if licence and card.licence() != licence:
        raise BundleError(
            f"The card's front matter was edited and names the licence {card.licence() or 'none'!r}, "
            f"--licence says {licence!r}.",
            f"Change 'license:' in {bundle.folder / CARD}.",
        )
    conflicts = []
    if theirs:
        remote = CardText.parse(theirs)
        parts, digests = dict(card.parts), dict(card.digests)
        for name, text in remote.parts.items():
            if remote.digests and remote.is_users(name) and parts.get(name) != text:
                if card.is_users(name) and name in parts:
                    conflicts.append(name)
                else:
                    parts[name] = text
        card = CardText(parts, digests)
    return _tagged(str(card)), conflicts


def push(plan: PushPlan, message: str = "") -> PushResult:
    """Send what a plan says.

    Raises
    ------
    HubError
        If the Hub does not take it; a repository that was there is as it was.
    """
    library = hub_library()
    operations = []
    sums = {}
    for name in plan.files:
        content = plan.card.encode("utf-8") if name == CARD else str(plan.folder / name)
        operations.append(library.CommitOperationAdd(name, content))
        sums[name] = operations[-1].upload_info.sha256.hex()
    with explained(plan.repo):
        api = library.HfApi()
        if not plan.exists:
            api.create_repo(plan.repo, private=plan.private, exist_ok=True)
        info = api.create_commit(
            plan.repo,
            operations,
            commit_message=message or f"Upload {plan.folder.name} with xlstm-unet",
            parent_commit=plan.parent or None,
        )
    if plan.folder.parent == user_models_folder():
        pushed = Pushed(
            repo=plan.repo, revision=str(info.oid), pushed=datetime.now(UTC).isoformat(timespec="seconds")
        )
        write_record(plan.folder, read_record(plan.folder).model_copy(update={"pushed": pushed}))
    return PushResult(f"{endpoint()}/{plan.repo}", str(info.oid), sums)


def _on_the_hub(repo: str) -> tuple[str, str, list[str]]:
    """Return the card and the revision that are there, both empty if none, and what to tell the user."""
    library = hub_library()
    try:
        with explained(repo):
            info = library.HfApi().model_info(repo)
    except HubMissingError:
        return "", "", []
    names = {file.rfilename for file in info.siblings or []}
    if not names & set(FILE_LIMITS):
        return "", str(info.sha), []
    foreign = sorted(names - set(FILE_LIMITS) - {".gitattributes"})
    notes = [f"{repo} holds other files too, which stay: {', '.join(foreign)[:200]}."] if foreign else []
    try:
        return read_card(look_up(repo)), str(info.sha), notes
    except BundleError:  # a repository that is not, or not yet, a model of this format
        return "", str(info.sha), notes


def _tagged(card: str) -> str:
    """Return the card with the tag that models are found by, which an edited front matter may lack."""
    if TAG in _tags(CardText.parse(card).front().get("tags")):
        return card
    library = hub_library()
    try:
        parsed = library.ModelCard(card)
        if TAG not in _tags(parsed.data.tags):
            parsed.data.tags = [*_tags(parsed.data.tags), TAG]
            return str(parsed)
    except Exception as error:
        raise BundleError(
            f"The card's front matter (between the lines ---) is no YAML: {error}", "Repair README.md."
        ) from error
    return card


def _tags(value: Any) -> list[str]:
    return [tag for tag in value if isinstance(tag, str)] if isinstance(value, list) else []
