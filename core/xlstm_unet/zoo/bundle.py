"""Model bundles: the folder that holds a model, read with suspicion and written whole.

A bundle is a folder with ``model.json`` (`ModelSpec`), ``model.safetensors``, ``README.md`` (model card),
``LICENSE`` and, optionally, ``replay.npz``. See ``docs/bundle-format.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from xlstm_unet.errors import BundleError, ModelError
from xlstm_unet.spec import FORMAT_VERSION, ModelSpec
from xlstm_unet.zoo.place import atomic_folder, mend
from xlstm_unet.zoo.untrusted import (
    MAX_WEIGHTS_BYTES,
    check_plain_file,
    parse_json_object,
    read_plain_file,
    read_text,
)

if TYPE_CHECKING:
    from torch import Tensor

    from xlstm_unet.learn.replay import ReplayPack
    from xlstm_unet.nets import Network
    from xlstm_unet.zoo.weights import StoredType

SPEC, WEIGHTS, CARD, LICENCE, REPLAY = "model.json", "model.safetensors", "README.md", "LICENSE", "replay.npz"
MAX_TEXT_BYTES = 2**20
MAX_REPLAY_BYTES = 10**6
FILE_LIMITS = {
    SPEC: MAX_TEXT_BYTES,
    CARD: MAX_TEXT_BYTES,
    LICENCE: MAX_TEXT_BYTES,
    REPLAY: MAX_REPLAY_BYTES,
    WEIGHTS: MAX_WEIGHTS_BYTES,
}
"""All files that a model may have, smallest first, with their largest sizes in bytes."""
_OTHER_WEIGHTS = {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".safetensors"}
_MAX_FEATURES, _MAX_KERNEL, _MAX_PATCH = 8192, 31, 8192
_MAX_BLOCKS = 1024
"""More would take seconds to lay out, even without memory."""


@dataclass(frozen=True)
class Bundle:
    """An opened model bundle.

    Parameters
    ----------
    folder
        Where it lies.
    spec
        What the model is.
    weights
        float32 tensors on the CPU by name, finite, exactly those of the network.
    card
        Text of the model card; empty when there is none.
    licence
        Text of the licence; empty when there is none.
    """

    folder: Path
    spec: ModelSpec
    weights: dict[str, Tensor]
    card: str
    licence: str

    def build(self) -> Network:
        """Build the network with a copy of these weights, in evaluation mode on the CPU."""
        network = _empty_network(self.spec)
        network.load_state_dict({name: tensor.clone() for name, tensor in self.weights.items()}, assign=True)
        return network.eval()

    def read_replay(self) -> ReplayPack | None:
        """Read the replay pack; None when the bundle has none.

        Raises
        ------
        BundleError
            If it is damaged or larger than 1 MB.
        """
        return read_replay(self.folder)


def read_bundle(folder: Path | str) -> Bundle:
    """Open a model bundle.

    Everything is checked before it is used: plain files of bounded size, a specification without
    unknown fields, tensors that are exactly the network's, finite values.

    Raises
    ------
    BundleError
        Naming the file and the field that is wrong.
    """
    from xlstm_unet.zoo.weights import read_weights

    folder = Path(folder)
    spec = read_spec(folder)
    return Bundle(
        folder=folder,
        spec=spec,
        weights=read_weights(folder / WEIGHTS, network_shapes(spec)),
        card=read_text(folder / CARD, MAX_TEXT_BYTES),
        licence=read_text(folder / LICENCE, MAX_TEXT_BYTES),
    )


def read_replay(folder: Path) -> ReplayPack | None:
    """Read the replay pack of the bundle in ``folder``; None when it has none.

    Raises
    ------
    BundleError
        If it is damaged or larger than 1 MB.
    """
    from xlstm_unet.learn.replay import ReplayPack

    path = folder / REPLAY
    if not path.exists() and not path.is_symlink():
        return None
    check_plain_file(path, MAX_REPLAY_BYTES)
    return ReplayPack.load(path)


def read_spec(folder: Path) -> ModelSpec:
    """Read and check ``model.json`` alone, which is quick and needs no torch.

    Raises
    ------
    BundleError
        If the folder is no bundle or the file is not a specification that this version reads.
    """
    if not folder.is_dir():
        mend(folder.parent)
    if not folder.is_dir():
        raise BundleError(f"{folder} is not a folder.", "A model is a folder with model.json.")
    _refuse_other_weights(folder)
    path = folder / SPEC
    fields = parse_json_object(read_plain_file(path, MAX_TEXT_BYTES), str(path))
    version = fields.get("format_version")
    if type(version) is not int or version < 1:
        raise BundleError(f"{path}: format_version is {version!r}, expected a whole number from 1.")
    if version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: format_version is {version}, this program reads up to {FORMAT_VERSION}.",
            "Update xlstm-unet: pip install -U xlstm-unet",
        )
    try:
        spec = ModelSpec.model_validate(fields)
    except ValidationError as error:
        raise BundleError(f"{path}: {_first_problem(error)}.") from error
    _check_bounds(path, spec)
    return spec


def network_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the network by name, without allocating it.

    Raises
    ------
    BundleError
        If no network can be built from ``spec``.
    """
    try:
        network = _empty_network(spec)
    except (ModelError, ValueError, RuntimeError, OverflowError) as error:
        raise BundleError(f"{SPEC}: no network can be built: {error}") from error
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def write_bundle(
    folder: Path | str,
    spec: ModelSpec,
    network: Network,
    *,
    card: str,
    licence: str,
    replay: ReplayPack | None = None,
    dtype: StoredType = "float16",
) -> Path:
    """Write a model bundle, whole or not at all.

    Parameters
    ----------
    folder
        Where it goes. A bundle that is there is replaced; any other folder that is not empty is refused.
    spec, network
        The model.
    card, licence
        Texts of ``README.md`` and ``LICENSE``.
    replay
        Kept samples for later fine-tuning, at most 1 MB on disk.
    dtype
        How weights are stored.

    Raises
    ------
    OutputError
        If it cannot be written; the previous bundle stays.
    BundleError
        If weights are not finite, the replay pack is too large, or ``folder`` is something else.
    """
    from xlstm_unet.zoo.weights import write_weights

    folder = Path(folder).absolute()
    with atomic_folder(folder, lambda: check_replaceable(folder)) as partial:
        (partial / SPEC).write_text(spec.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_weights(partial / WEIGHTS, network.state_dict(), dtype)
        (partial / CARD).write_text(card, encoding="utf-8")
        (partial / LICENCE).write_text(licence, encoding="utf-8")
        if replay is not None:
            replay.save(partial / REPLAY)
            check_plain_file(partial / REPLAY, MAX_REPLAY_BYTES)
    return folder


def check_replaceable(folder: Path) -> None:
    """Raise `BundleError` unless ``folder`` is free, empty, or a bundle that may be replaced."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise BundleError(f"{folder} exists and is not a folder.", "Choose another place for the model.")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / SPEC).is_file():
        raise BundleError(
            f"{folder} holds files that are no model; they will not be replaced.", "Choose a new folder."
        )


def _empty_network(spec: ModelSpec) -> Network:
    import torch

    from xlstm_unet.nets import build_network

    with torch.device("meta"):
        return build_network(spec)


def _refuse_other_weights(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.suffix.lower() in _OTHER_WEIGHTS and entry.name != WEIGHTS:
            raise BundleError(
                f"{folder} also holds {entry.name}; a bundle has one weights file, {WEIGHTS}.",
                "Remove the file, or use `xlstm-unet models import` for checkpoints of other software.",
            )


def _check_bounds(path: Path, spec: ModelSpec) -> None:
    network = spec.network
    bounds: dict[str, tuple[Any, int]] = {
        "network.features": (network.features, _MAX_FEATURES),
        "network.kernels": (sum(network.kernels, ()), _MAX_KERNEL),
        "network.strides": (sum(network.strides, ()), _MAX_KERNEL),
        "patch_size": (spec.patch_size, _MAX_PATCH),
    }
    for field, (values, limit) in bounds.items():
        if max(values) > limit:
            raise BundleError(f"{path}: {field} holds {max(values)}, expected at most {limit}.")
    blocks = spec.folds * (sum(network.encoder_blocks) + sum(network.decoder_blocks))
    if blocks > _MAX_BLOCKS:
        raise BundleError(
            f"{path}: the network has {blocks} blocks in all folds, expected at most {_MAX_BLOCKS}."
        )


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "the whole"
    found = "" if problem["type"] in ("missing", "extra_forbidden") else f" (found {problem['input']!r:.80})"
    return f"{field}: {problem['msg']}{found}"
