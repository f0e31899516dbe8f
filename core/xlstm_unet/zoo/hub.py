"""Models on the Hub: searching, looking at one, and fetching its files into the standard cache.

Nothing here runs at import or start-up, and nothing is fetched that was not asked for by name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_unet.errors import (
    BundleError,
    HubDamagedError,
    HubMissingError,
    HubOfflineError,
    TooLargeError,
)
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.zoo.bundle import CARD, FILE_LIMITS, MAX_TEXT_BYTES, SPEC, WEIGHTS
from xlstm_unet.zoo.card import TAG
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.hub_cache import cached_digest, digests, evict, newest_revision
from xlstm_unet.zoo.hub_library import explained, hub_library
from xlstm_unet.zoo.store import REPO_PATTERN
from xlstm_unet.zoo.untrusted import read_text

LARGE_BYTES = 100_000_000
"""More than this is not fetched without asking."""

_POLL_SECONDS = 0.05
_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True)
class Found:
    """A model that a search found; fields as the Hub gives them."""

    repo: str
    licence: str
    downloads: int
    likes: int
    updated: str
    gated: bool


@dataclass(frozen=True)
class HubFile:
    """One file of a model on the Hub.

    Parameters
    ----------
    name
        Its name.
    size
        Bytes.
    digest
        SHA-256 (64 digits) or git's SHA-1 (40 digits) as the Hub announces it; empty where it does not.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class HubModel:
    """A model on the Hub at one revision.

    Parameters
    ----------
    repo
        ``owner/name``.
    revision
        Commit.
    requested
        What was asked for: a branch, tag or commit.
    files
        What would be fetched.
    licence
        As the Hub has it; empty where it has none.
    gated
        Whether terms have to be accepted first.
    cached
        Whether this comes from the cache, the Hub being out of reach.
    """

    repo: str
    revision: str
    requested: str
    files: tuple[HubFile, ...]
    licence: str
    gated: bool
    cached: bool = False

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def split_reference(text: str) -> tuple[str, str | None]:
    """Split ``owner/name[@revision]``.

    Raises
    ------
    HubMissingError
        If it is something else.
    """
    match = re.fullmatch(REPO_PATTERN, text)
    if match is None or ".." in text:
        raise HubMissingError(
            f"{text[:200]!r} is no model on the Hub.", "Give owner/name or owner/name@revision."
        )
    return match["repo"], match["revision"]


def search(query: str = "", limit: int = 20) -> list[Found]:
    """Search the Hub for models of this format, those fetched most often first.

    Raises
    ------
    HubError
        If it cannot be reached.
    """
    library = hub_library()
    with explained("the list of models"):
        # The library tries a list again and again for half a minute; one question tells whether to try.
        library.get_session().head(library.constants.ENDPOINT, timeout=_TIMEOUT_SECONDS)
        models = library.HfApi().list_models(
            filter=TAG, search=query or None, sort="downloads", limit=limit, expand=_EXPAND
        )
        return [_found(model) for model in models]


_EXPAND = ["author", "downloads", "likes", "gated", "lastModified", "tags"]


def look_up(reference: str) -> HubModel:
    """Find out what fetching ``owner/name[@revision]`` would bring; without a network, from the cache.

    Raises
    ------
    HubMissingError, HubGatedError, HubOfflineError
        If it cannot be had.
    BundleError
        If it is no model of this format, or a file is larger than such a model may have.
    """
    repo, requested = split_reference(reference)
    library = hub_library()
    try:
        with explained(repo):
            info = library.HfApi().model_info(
                repo, revision=requested, files_metadata=True, timeout=_TIMEOUT_SECONDS
            )
    except HubOfflineError:
        cached = _from_cache(repo, requested)
        if cached is None:
            raise
        return cached
    siblings = {file.rfilename: file for file in info.siblings or []}
    files = tuple(_file(repo, siblings[name]) for name in FILE_LIMITS if name in siblings)
    model = HubModel(
        repo=repo,
        revision=str(info.sha),
        requested=requested or "main",
        files=files,
        licence=_licence(info),
        gated=bool(info.gated),
    )
    return _checked(model)


def read_card(model: HubModel) -> str:
    """Fetch and return the model's card alone; empty where it has none.

    Raises
    ------
    HubError
        If it cannot be fetched.
    """
    card = next((file for file in model.files if file.name == CARD), None)
    return "" if card is None else read_text(_fetch_file(model, card, None).resolve(), MAX_TEXT_BYTES)


def fetch(
    model: HubModel,
    *,
    max_bytes: int = LARGE_BYTES,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Path]:
    """Fetch a model's files into the Hub's standard cache and check them.

    A connection that breaks is taken up again where it broke. Files that are there already are not fetched.

    Parameters
    ----------
    model
        From `look_up`.
    max_bytes
        More than this is refused before anything is fetched.
    on_progress
        Called with bytes done and in all.
    cancel
        Asked twenty times a second.

    Returns
    -------
    dict
        Where each file lies, by name.

    Raises
    ------
    TooLargeError
        If it is larger than ``max_bytes``.
    HubDamagedError
        If a file is not what the Hub announced.
    HubError, OutputError
        If it cannot be fetched or stored.
    CancelledError
        If ``cancel`` says so.
    """
    if model.size_bytes > max_bytes:
        raise TooLargeError(
            f"{model.repo} has {model.size_bytes / 1e6:.0f} MB, more than the {max_bytes / 1e6:.0f} MB "
            "that are fetched without asking.",
            "Confirm its size to fetch it.",
        )
    return _interruptible(lambda stop: _fetch_all(model, on_progress, stop), cancel)


def _fetch_all(model: HubModel, on_progress: OnProgress | None, stop: Cancel) -> dict[str, Path]:
    done = 0
    paths = {}
    for file in model.files:

        def report(received: int, file: HubFile = file, before: int = done) -> None:
            check_cancelled(stop)
            if received > file.size:
                raise HubDamagedError(
                    f"{model.repo}: {file.name} is larger than the {file.size} bytes announced."
                )
            if on_progress is not None:
                on_progress(Progress("downloading", before + received, model.size_bytes))

        report(0)
        paths[file.name] = _fetch_file(model, file, report)
        report(file.size)
        done += file.size
    return paths


def _fetch_file(model: HubModel, file: HubFile, report: Callable[[int], None] | None) -> Path:
    library = hub_library()
    with explained(model.repo):
        path = Path(
            library.hf_hub_download(
                model.repo,
                file.name,
                revision=model.revision,
                tqdm_class=_bar(report or (lambda received: None)),
                local_files_only=model.cached,
            )
        )
        size, digest = path.stat().st_size, dict(zip((64, 40), digests(path), strict=True))
        expected = file.digest or cached_digest(path)
    if size != file.size or (expected and digest[len(expected)] != expected):
        evict(path)
        raise HubDamagedError(
            f"{model.repo}: {file.name} is not what the Hub announced: {size} bytes with "
            f"digest {digest[len(expected) or 64][:12]}, expected {file.size} with {expected[:12] or 'any'}.",
            "It was thrown away. Try again; if it stays so, tell the model's owner.",
        )
    return path


def _bar(report: Callable[[int], None]) -> type:
    """Return what the library takes for a class of progress bars."""

    class Bar:
        def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object) -> None:
            self.total, self.n = total, int(initial)

        def __enter__(self) -> Bar:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def update(self, n: float | None = 1) -> None:
            self.n += int(n or 0)
            report(self.n)

        def ignored(self, *_: object, **__: object) -> None:
            pass

        close = refresh = update_transfer = set_postfix_str = set_transfer_postfix_str = ignored

    return Bar


def _interruptible(work: Callable[[Cancel], dict[str, Path]], cancel: Cancel | None) -> dict[str, Path]:
    """Run ``work`` on a thread of its own, so that a cancel is heard while the line is silent."""
    stop = threading.Event()
    outcome: list[dict[str, Path] | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work(stop.is_set))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, name="download", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_POLL_SECONDS)
            check_cancelled(cancel)
    finally:
        stop.set()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _from_cache(repo: str, requested: str | None) -> HubModel | None:
    """What the cache holds of a model, its newest revision by default; None where it lacks a part."""
    library = hub_library()
    held = requested or newest_revision(repo)
    found: dict[str, Path] = {}
    for name in FILE_LIMITS if held else ():
        path = library.try_to_load_from_cache(repo, name, revision=held)
        if isinstance(path, str):
            found[name] = Path(path)
    if SPEC not in found or WEIGHTS not in found:
        return None
    files = tuple(HubFile(name, path.stat().st_size, cached_digest(path)) for name, path in found.items())
    card = read_text(found[CARD].resolve(), MAX_TEXT_BYTES) if CARD in found else ""
    licence = CardText.parse(card).licence()
    revision = found[SPEC].parent.name
    return _checked(HubModel(repo, revision, held or "", files, licence, gated=False, cached=True))


def _file(repo: str, sibling: Any) -> HubFile:
    lfs = sibling.lfs
    digest = lfs.sha256 if lfs is not None else sibling.blob_id
    if sibling.size is None or sibling.size < 0:
        raise BundleError(f"{repo}: the Hub does not say how large {sibling.rfilename} is.")
    return HubFile(sibling.rfilename, int(sibling.size), _digest_text(digest))


def _digest_text(digest: object) -> str:
    text = digest if isinstance(digest, str) else ""
    return text if re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", text) else ""


def _checked(model: HubModel) -> HubModel:
    names = {file.name for file in model.files}
    for needed in (SPEC, WEIGHTS):
        if needed not in names:
            raise BundleError(
                f"{model.repo} has no {needed}: it is no model of xLSTM-UNet.",
                f"Models that fit carry the tag {TAG}: xlstm-unet models search",
            )
    for file in model.files:
        if file.size > FILE_LIMITS[file.name]:
            raise BundleError(
                f"{model.repo}: {file.name} has {file.size} bytes, expected at most {FILE_LIMITS[file.name]}."
            )
    return model


def _found(model: Any) -> Found:
    return Found(
        repo=str(model.id),
        licence=_licence(model),
        downloads=int(model.downloads or 0),
        likes=int(model.likes or 0),
        updated=model.last_modified.date().isoformat() if model.last_modified else "",
        gated=bool(model.gated),
    )


def _licence(model: Any) -> str:
    card = model.card_data
    licence = getattr(card, "license", None) if card is not None else None
    if isinstance(licence, str):
        return licence[:100]
    return next(
        (tag.removeprefix("license:")[:100] for tag in model.tags or [] if tag.startswith("license:")), ""
    )
