"""Where models are found: those that come with the package, those fetched, and the user's own."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xlstm_unet.errors import BundleError, ModelError, ModelNotFoundError
from xlstm_unet.zoo.bundle import CARD, MAX_TEXT_BYTES, SPEC, Bundle, read_bundle, read_spec
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.place import mend, user_folder
from xlstm_unet.zoo.record import Record, Source, read_record
from xlstm_unet.zoo.untrusted import read_text

if TYPE_CHECKING:
    from xlstm_unet.segment import Segmenter
    from xlstm_unet.spec import ModelSpec

Origin = Literal["embedded", "downloaded", "own"]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
REPO_PATTERN = rf"(?P<repo>{NAME_PATTERN}/[A-Za-z0-9._-]{{1,96}})(?:@(?P<revision>[A-Za-z0-9._/-]{{1,200}}))?"
"""``owner/name`` or ``owner/name@revision``."""
_EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class ModelEntry:
    """A model that was found.

    Parameters
    ----------
    name
        Name to load it by: the folder's name.
    origin
        ``embedded`` comes with the package, ``downloaded`` is from the Hub, ``own`` was trained, fine-tuned
        or imported here; the latter two lie in the user's models folder.
    folder
        Where it lies.
    size_bytes
        Size of its files.
    spec
        What it is; None when it is damaged.
    problem
        Why it cannot be used; empty when it can.
    source
        Where it was fetched from; None for those that were not.
    pinned
        Whether it may be neither updated nor removed.
    licence
        As its card names it; empty where it does not.
    scores
        Score by name, as its card has them.
    """

    name: str
    origin: Origin
    folder: Path
    size_bytes: int
    spec: ModelSpec | None
    problem: str
    source: Source | None = None
    pinned: bool = False
    licence: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)


def user_models_folder() -> Path:
    """Return the folder of the user's own models (below ``XLSTM_UNET_HOME`` if that is set)."""
    return user_folder() / "models"


def list_models() -> list[ModelEntry]:
    """List all models, embedded ones first; a damaged one is listed with its problem."""
    entries = []
    mend(user_models_folder())
    for embedded, home in ((True, _EMBEDDED), (False, user_models_folder())):
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                entries.append(_describe(folder, embedded))
    return entries


def find_model(name_or_path: str | Path) -> Path:
    """Return the folder of a model given by name, by the path of its folder, or by ``owner/name`` if fetched.

    A name means an embedded model first, then the user's own.

    Raises
    ------
    ModelNotFoundError
        With the names that there are and the nearest one.
    """
    name = os.fspath(name_or_path)
    if name and name not in (".", "..") and "\0" not in name:
        if Path(name).name == name:
            mend(user_models_folder())
            for home in (_EMBEDDED, user_models_folder()):
                if (home / name).is_dir():
                    return home / name
        mend(Path(name).absolute().parent)
        if (Path(name) / SPEC).exists():
            return Path(name)
    entries = list_models()
    for entry in entries:
        if entry.source is not None and name in (
            entry.source.repo,
            f"{entry.source.repo}@{entry.source.revision}",
        ):
            return entry.folder
    names = sorted({entry.name for entry in entries})
    nearest = difflib.get_close_matches(name, names, n=1)
    if nearest:
        hint = f"Did you mean {nearest[0]!r}?"
    elif re.fullmatch(REPO_PATTERN, name):
        hint = f"If it is on the Hub: xlstm-unet models get {name}"
    else:
        hint = "Give one of these names or a model's folder." if names else "Give a model's folder."
    raise ModelNotFoundError(
        f"There is no model {name!r}; there {'are ' + ', '.join(names) if names else 'is none yet'}.", hint
    )


def find_entry(name_or_path: str | Path) -> ModelEntry:
    """Describe one model; see `find_model`."""
    folder = find_model(name_or_path)
    return _describe(folder, folder.parent == _EMBEDDED)


def own_folder(name: str) -> Path:
    """Return where the user's own model of that name lies or will lie.

    Raises
    ------
    ModelError
        If the name cannot be a model's, or an embedded model has it.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise ModelError(
            f"{name!r} cannot be a model's name.", "Use up to 64 letters, digits, '.', '_' and '-'."
        )
    if (_EMBEDDED / name).is_dir():
        raise ModelError(f"{name!r} is the name of an embedded model.", "Choose another name.")
    return user_models_folder() / name


def load_model(name_or_path: str | Path) -> Bundle:
    """Open a model by name or folder; see `find_model` and `read_bundle`."""
    return read_bundle(find_model(name_or_path))


def load(name_or_path: str | Path, device: str = "auto") -> Segmenter:
    """Load a model, ready to segment.

    Parameters
    ----------
    name_or_path
        Name of an embedded or own model, or the folder of one.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.

    Raises
    ------
    ModelNotFoundError, BundleError, DeviceError
        See `find_model`, `read_bundle`, `xlstm_unet.nets.best_device`.
    """
    from xlstm_unet.segment import Segmenter

    bundle = load_model(name_or_path)
    return Segmenter(bundle.spec, bundle.build(), device=device, name=bundle.spec.name)


def _describe(folder: Path, embedded: bool) -> ModelEntry:
    record = Record() if embedded else _record_or_none(folder)
    spec, card, problem = None, CardText({}), ""
    size = 0
    try:
        size = sum(path.lstat().st_size for path in folder.iterdir() if path.is_file())
        spec = read_spec(folder)
        card = CardText.parse(read_text(folder / CARD, MAX_TEXT_BYTES))
    except BundleError as error:
        spec, problem = None, str(error)
    except OSError as error:
        spec, problem = None, f"Cannot read {folder}: {error.strerror}."
    return ModelEntry(
        name=folder.name,
        origin="embedded" if embedded else "downloaded" if record.source else "own",
        folder=folder,
        size_bytes=size,
        spec=spec,
        problem=problem,
        source=record.source,
        pinned=record.pinned,
        licence=card.licence(),
        scores=card.scores(),
    )


def _record_or_none(folder: Path) -> Record:
    """A damaged note costs the model its history, not its use."""
    try:
        return read_record(folder)
    except BundleError:
        return Record()
