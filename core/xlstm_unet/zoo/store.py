"""Where models are found: those that come with the package, and the user's own."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from xlstm_unet.errors import BundleError, ModelError, ModelNotFoundError
from xlstm_unet.zoo.bundle import SPEC, Bundle, read_bundle, read_spec

if TYPE_CHECKING:
    from xlstm_unet.segment import Segmenter
    from xlstm_unet.spec import ModelSpec

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_EMBEDDED = Path(__file__).parent / "embedded"


@dataclass(frozen=True)
class ModelEntry:
    """A model that was found.

    Parameters
    ----------
    name
        Name to load it by: the folder's name.
    origin
        ``embedded`` comes with the package, ``own`` lies in the user's models folder.
    folder
        Where it lies.
    size_bytes
        Size of its files.
    spec
        What it is; None when it is damaged.
    problem
        Why it cannot be used; empty when it can.
    """

    name: str
    origin: Literal["embedded", "own"]
    folder: Path
    size_bytes: int
    spec: ModelSpec | None
    problem: str


def user_models_folder() -> Path:
    """Return the folder of the user's own models (below ``XLSTM_UNET_HOME`` if that is set)."""
    home = os.environ.get("XLSTM_UNET_HOME")
    if home:
        return Path(home).expanduser() / "models"
    from platformdirs import user_data_dir

    return Path(user_data_dir("xlstm-unet", appauthor=False)) / "models"


def list_models() -> list[ModelEntry]:
    """List all models, embedded ones first; a damaged one is listed with its problem."""
    entries = []
    origins: tuple[tuple[Literal["embedded", "own"], Path], ...] = (
        ("embedded", _EMBEDDED),
        ("own", user_models_folder()),
    )
    for origin, home in origins:
        for folder in sorted(home.iterdir()) if home.is_dir() else ():
            if folder.is_dir() and not folder.name.startswith((".", "_")):
                entries.append(_describe(folder, origin))
    return entries


def find_model(name_or_path: str | Path) -> Path:
    """Return the folder of a model given by name, or by the path of its folder.

    A name means an embedded model first, then the user's own.

    Raises
    ------
    ModelNotFoundError
        With the names that there are and the nearest one.
    """
    name = os.fspath(name_or_path)
    if name and name not in (".", "..") and Path(name).name == name:
        for home in (_EMBEDDED, user_models_folder()):
            if (home / name).is_dir():
                return home / name
    if name and (Path(name) / SPEC).exists():
        return Path(name)
    names = sorted({entry.name for entry in list_models()})
    nearest = difflib.get_close_matches(name, names, n=1)
    if nearest:
        hint = f"Did you mean {nearest[0]!r}?"
    else:
        hint = "Give one of these names or a model's folder." if names else "Give a model's folder."
    raise ModelNotFoundError(
        f"There is no model {name!r}; there {'are ' + ', '.join(names) if names else 'is none yet'}.", hint
    )


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


def _describe(folder: Path, origin: Literal["embedded", "own"]) -> ModelEntry:
    size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
    try:
        return ModelEntry(folder.name, origin, folder, size, read_spec(folder), "")
    except BundleError as error:
        return ModelEntry(folder.name, origin, folder, size, None, str(error))
