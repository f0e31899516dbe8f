"""Fetching a model from the Hub into the user's store."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from xlstm_unet.errors import BundleError, HubDamagedError, ModelError
from xlstm_unet.progress import Cancel, OnProgress
from xlstm_unet.zoo.bundle import WEIGHTS, read_bundle
from xlstm_unet.zoo.catalogue import published
from xlstm_unet.zoo.hub import LARGE_BYTES, HubModel, fetch
from xlstm_unet.zoo.hub_cache import digests, forget
from xlstm_unet.zoo.hub_library import endpoint
from xlstm_unet.zoo.place import atomic_folder
from xlstm_unet.zoo.record import Record, Source, write_record
from xlstm_unet.zoo.store import ModelEntry, find_entry, list_models, own_folder


@dataclass(frozen=True)
class Got:
    """A model that is in the store now.

    Parameters
    ----------
    entry
        The model.
    already
        Whether it was there at this revision.
    """

    entry: ModelEntry
    already: bool


def get_model(
    model: HubModel,
    *,
    name: str | None = None,
    max_bytes: int = LARGE_BYTES,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> Got:
    """Fetch a model, check it, and put it into the user's store.

    An earlier revision of the same model is replaced.

    Parameters
    ----------
    model
        From `xlstm_unet.zoo.hub.look_up`.
    name
        Name to load it by. By default the name of its repository; with its owner's after it where another
        model has that name.
    max_bytes, on_progress, cancel
        As in `xlstm_unet.zoo.hub.fetch`.

    Raises
    ------
    HubError, BundleError, ModelError, OutputError, CancelledError
        If it cannot be fetched, is damaged or hostile, has a name that is taken, or cannot be stored.
    """
    here = next((e for e in list_models() if e.source is not None and e.source.repo == model.repo), None)
    if here is not None and name in (None, here.name) and not here.problem:
        assert here.source is not None
        if here.source.revision == model.revision:
            return Got(here, already=True)
        if here.pinned:
            raise ModelError(
                f"Model {here.name!r} is pinned at {here.source.revision[:12]} of {model.repo}.",
                f"Let it go first (xlstm-unet models pin {here.name} --off), or give another --name.",
            )
    folder = own_folder(name or (here.name if here is not None else _free_name(model.repo)))
    paths = fetch(model, max_bytes=max_bytes, on_progress=on_progress, cancel=cancel)
    sums = {file: digests(path)[0] for file, path in paths.items()}
    _check_published(model, sums)
    source = Source(
        repo=model.repo,
        revision=model.revision,
        requested=model.requested,
        endpoint=endpoint(),
        fetched=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with atomic_folder(folder, lambda: _check_replaceable(folder, model.repo)) as partial:
        for file, path in paths.items():
            _place(path.resolve(), partial / file)
        _check_bundle(partial, model.repo)
        write_record(partial, Record(source=source, files=sums))
    if here is not None and here.folder == folder and here.source is not None:
        forget(here.source.repo, here.source.revision)
    return Got(find_entry(folder.name), already=False)


def _free_name(repo: str) -> str:
    owner, name = repo.split("/")
    taken = {entry.name for entry in list_models()}
    return name if name not in taken else f"{name}-{owner}"[:64]


def _check_replaceable(folder: Path, repo: str) -> None:
    if folder.exists():
        entry = find_entry(folder.name)
        if entry.source is None or entry.source.repo != repo:
            raise ModelError(f"There is another model {folder.name!r} already.", "Give a --name.")


def _check_published(model: HubModel, sums: dict[str, str]) -> None:
    """Compare with the checksums that came with this package, for a model of this project's own."""
    known = published().get(model.repo)
    if known is not None and known.revision == model.revision and known.files != sums:
        raise HubDamagedError(
            f"{model.repo} at {model.revision[:12]} is not what this project published.",
            "Do not use it. Please report it.",
        )


def _check_bundle(folder: Path, repo: str) -> None:
    try:
        read_bundle(folder).read_replay()
    except BundleError as error:
        message = error.message.replace(f"{folder}{os.sep}", "").replace(str(folder), repo)
        raise BundleError(f"{repo} cannot be used: {message}", error.hint or "Tell its owner.") from error


def _place(source: Path, target: Path) -> None:
    """Share the weights with the cache where both lie on one disk; copy what people edit."""
    if target.name == WEIGHTS:
        try:
            os.link(source, target)
            return
        except OSError:
            pass
    shutil.copyfile(source, target)
