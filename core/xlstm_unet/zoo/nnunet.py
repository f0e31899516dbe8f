"""Reading models that the authors' released code trained: results folders in nnU-Net's layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from xlstm_unet.errors import BundleError
from xlstm_unet.nets import Ensemble, Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.nnunet_plans import model_spec
from xlstm_unet.zoo.nnunet_weights import load_released_weights, read_checkpoint
from xlstm_unet.zoo.untrusted import parse_json_object, read_plain_file

MAX_JSON_BYTES = 64 * 2**20
_MOST_FOLDS = 10


@dataclass(frozen=True)
class ImportedModel:
    """A released model.

    Parameters
    ----------
    spec
        What the plans say.
    network
        The network in evaluation mode, float32, on the CPU; an `Ensemble` where there are several folds.
    folds
        Which of the trained folds it is made of ("all", "0", …).
    """

    spec: ModelSpec
    network: Network
    folds: tuple[str, ...]


def import_nnunet(
    folder: str | Path, checkpoint: str = "checkpoint_final.pth", *, folds: Sequence[str] | None = None
) -> ImportedModel:
    """Read a results folder of the released code.

    Parameters
    ----------
    folder
        ``<trainer>__<plans>__<configuration>`` with ``plans.json``, ``dataset.json`` and ``fold_*`` folders.
    checkpoint
        Name of the file in the fold's folder.
    folds
        Which folds, such as ``("0", "2")`` or ``("all",)``; by default all numbered ones, whose logits are
        averaged, or ``all`` where there are none, as in nnU-Net.

    Returns
    -------
    ImportedModel
        With ``.spec`` and ``.network``.

    Raises
    ------
    BundleError
        If files are missing, damaged, hostile (nothing in them is ever executed) or of another network.
    """
    folder = Path(folder)
    plans = _read_json(folder, "plans.json")
    dataset = _read_json(folder, "dataset.json")
    paths = _find_checkpoints(folder, checkpoint, folds)
    content = read_checkpoint(paths[0])
    try:
        spec = model_spec(plans, dataset, content, len(paths))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{folder}: the plans give no valid network: {where}: {first['msg']}.") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(
            f"{folder}: plans, dataset.json or checkpoint lack a field or hold another type: {error!r}.",
            "They must be as the released code (nnU-Net 2.1) writes them.",
        ) from error
    networks = [load_released_weights(spec, content["network_weights"], source=str(paths[0]))]
    for path in paths[1:]:
        other = read_checkpoint(path)
        for field in ("trainer_name", "init_args"):
            if _kind(other[field]) != _kind(content[field]):
                raise BundleError(
                    f"{path} has {field} {_kind(other[field])!r}, {paths[0]} {_kind(content[field])!r}."
                )
        networks.append(load_released_weights(spec, other["network_weights"], source=str(path)))
    return ImportedModel(
        spec, _joined(spec, networks), tuple(path.parent.name.removeprefix("fold_") for path in paths)
    )


def _kind(field: Any) -> Any:
    """Return the trainer or, of its arguments, the configuration: what all folds must share."""
    return field if isinstance(field, str) else field.get("configuration")


def _joined(spec: ModelSpec, networks: list[Network]) -> Network:
    if len(networks) == 1:
        return networks[0]
    with torch.device("meta"):
        ensemble = Ensemble(spec)
    ensemble.members = nn.ModuleList(networks)
    return ensemble.eval()


def _find_checkpoints(folder: Path, checkpoint: str, folds: Sequence[str] | None) -> list[Path]:
    if Path(checkpoint).name != checkpoint:
        raise BundleError(f'checkpoint is "{checkpoint}", expected the name of a file in a fold\'s folder.')
    found = {
        path.name.removeprefix("fold_"): path / checkpoint
        for path in folder.glob("fold_*")
        if (path / checkpoint).is_file()
    }
    if not found:
        raise BundleError(f"{folder} has no fold_*/{checkpoint}.", "Give another checkpoint name.")
    if folds is None:
        folds = sorted((name for name in found if name.isdecimal()), key=int) or sorted(found)[:1]
    missing = [name for name in folds if name not in found]
    if missing or not folds:
        raise BundleError(
            f"{folder} has no fold_{missing[0] if missing else '*'}/{checkpoint}.",
            f"It has the folds {', '.join(sorted(found))}.",
        )
    if len(set(folds)) != len(folds) or len(folds) > _MOST_FOLDS:
        raise BundleError(f"folds are {', '.join(folds)}, expected at most {_MOST_FOLDS}, each once.")
    return [found[name] for name in folds]


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {name}.",
            "Give the folder <trainer>__<plans>__<configuration> of the results folder.",
        )
    return parse_json_object(read_plain_file(path, MAX_JSON_BYTES), str(path))
