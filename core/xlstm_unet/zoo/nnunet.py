"""Reading models that the authors' released code trained: results folders in nnU-Net's layout."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from xlstm_unet.errors import BundleError
from xlstm_unet.nets import Network, ViLLayer
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation
from xlstm_unet.zoo.untrusted import check_plain_file, parse_json_object, read_plain_file

MAX_CHECKPOINT_BYTES = 8 * 2**30
"""The largest released network with its optimizer state has about 0.8 GB."""
MAX_PICKLE_BYTES = 64 * 2**20
MAX_JSON_BYTES = 64 * 2**20

VARIANTS: dict[str, Literal["bot", "enc"]] = {
    "nnUNetTrainerUxLSTMBot": "bot",
    "nnUNetTrainerUxLSTMEnc": "enc",
}
"""Network variant by trainer name."""

SCHEMES: dict[str, Literal["zscore", "ct", "rescale01", "rgb01", "none"]] = {
    "ZScoreNormalization": "zscore",
    "CTNormalization": "ct",
    "RescaleTo01Normalization": "rescale01",
    "RGBTo01Normalization": "rgb01",
    "NoNormalization": "none",
}
"""Our normalisation by nnU-Net's class name."""

RENAMING = (
    (r"^module\.", ""),
    (r"^decoder\.encoder\.", "encoder."),
    (r"^encoder\.stem\.", "stem."),
    (r"^encoder\.stages\.(\d+)\.", r"encoder.\1.blocks."),
    (r"^encoder\.xlstm_layers\.(\d+)\.", r"encoder.\1.mixer."),
    (r"^xlstm\.", "encoder.{last}.mixer."),
    (r"^decoder\.stages\.(\d+)\.", r"decoder.\1.blocks."),
    (r"^decoder\.upsample_layers\.(\d+)\.conv\.", r"decoder.\1.project."),
    (r"^decoder\.seg_layers\.(\d+)\.", r"decoder.\1.head."),
    (r"\.conv([12])\.(?:conv|all_modules\.0)\.", r".conv\1."),
    (r"\.conv([12])\.(?:norm|all_modules\.1)\.", r".norm\1."),
    (r"\.vil\.norm\.weight$", ".norm"),
    (r"\.vil\.layer\.learnable_skip$", ".skip"),
    (r"\.vil\.layer\.([qkv])_proj\.weight$", r".\1"),
    (r"\.vil\.layer\.(proj_up|proj_down)\.weight$", r".\1"),
    (r"\.vil\.layer\.conv1d\.conv\.(weight|bias)$", r".conv_\1"),
    (r"\.vil\.layer\.mlstm_cell\.(igate|fgate)\.(weight|bias)$", r".\1_\2"),
    (r"\.vil\.layer\.mlstm_cell\.outnorm\.weight$", ".outnorm"),
)
"""Pattern and replacement, applied in this order: the released names in ours. Several released names may mean
one tensor (the decoder holds the encoder, a block its layers twice)."""


@dataclass(frozen=True)
class ImportedModel:
    """A released model.

    Parameters
    ----------
    spec
        What the plans say, in the axis order of the plans.
    network
        The network in evaluation mode, float32, on the CPU.
    fold
        Which of the trained folds this is ("all", "0", …).
    transpose
        Axes of the image array in the order that the network takes.
    """

    spec: ModelSpec
    network: Network
    fold: str
    transpose: tuple[int, ...]


def import_nnunet(folder: str | Path, checkpoint: str = "checkpoint_final.pth") -> ImportedModel:
    """Read a results folder of the released code.

    Parameters
    ----------
    folder
        ``<trainer>__<plans>__<configuration>`` with ``plans.json``, ``dataset.json`` and ``fold_*`` folders,
        of which ``fold_all`` or else the lowest number is read.
    checkpoint
        Name of the file in the fold's folder.

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
    path = _find_checkpoint(folder, checkpoint)
    content = read_checkpoint(path)
    try:
        spec = _model_spec(plans, dataset, content["trainer_name"], content["init_args"]["configuration"])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{folder}: the plans give no valid network: {where}: {first['msg']}.") from error
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise BundleError(
            f"{folder}: plans, dataset.json or checkpoint lack a field or hold another type: {error!r}.",
            "They must be as the released code (nnU-Net 2.1) writes them.",
        ) from error
    network = load_released_weights(spec, content["network_weights"], source=str(path))
    transpose = tuple(int(axis) for axis in plans.get("transpose_forward", (0, 1, 2)))
    return ImportedModel(spec, network, path.parent.name.removeprefix("fold_"), transpose)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint holds; tensors stay on disk until they are used.

    Only tensors, numbers, texts, containers and numpy scalars are read: a pickle that names anything else is
    refused before it runs.

    Raises
    ------
    BundleError
        If the file is missing, too large, truncated, or holds something else.
    """
    check_plain_file(path, MAX_CHECKPOINT_BYTES)
    content: dict[str, Any]
    try:
        _check_archive(path)
        with torch.serialization.safe_globals(_numpy_scalars()):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except BundleError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise many types on damaged files
        # The rest of torch's message advises to run the pickle.
        named = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {named[1]}" if named else f"{type(error).__name__} while reading"
        raise BundleError(
            f"{path} cannot be read as a checkpoint: {reason}.",
            "It is damaged, or holds more than weights and was refused.",
        ) from error
    for field in ("network_weights", "trainer_name", "init_args"):
        if not isinstance(content, dict) or field not in content:
            raise BundleError(f"{path} has no {field}: it is no checkpoint of nnU-Net.")
    if not isinstance(content["network_weights"], Mapping):
        raise BundleError(f"{path}: network_weights is no table of tensors by name.")
    return content


def load_released_weights(spec: ModelSpec, released: Mapping[str, Tensor], *, source: str) -> Network:
    """Return the network of ``spec`` with the weights of a released state dict.

    Every tensor of it must be used, be a duplicate of one that is used, or be one of the norms beside the ViL
    layers that the released network never applies; and every weight must be given.

    Parameters
    ----------
    spec
        Model that the weights belong to.
    released
        Tensors by their released names.
    source
        Where they are from, for messages.

    Raises
    ------
    BundleError
        Naming the tensors that do not fit.
    """
    with torch.device("meta"):
        network = Network(spec)
    shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
    unused = {
        f"{name}.norm.{part}": torch.Size([module.width])
        for name, module in network.named_modules()
        if isinstance(module, ViLLayer)
        for part in ("weight", "bias")
    }
    found: dict[str, Tensor] = {}
    problems = []
    for name, tensor in released.items():
        ours = rename(name, stages=len(spec.network.features))
        shape = shapes.get(ours, unused.get(ours))
        if shape is None:
            problems.append(f"{name} is unknown")
        elif not isinstance(tensor, Tensor) or not tensor.is_floating_point() or tensor.is_sparse:
            problems.append(f"{name} is no array of floating-point numbers")
        elif tensor.shape != shape:
            problems.append(f"{name} has shape {list(tensor.shape)}, expected {list(shape)}")
        elif ours in found and not _same(found[ours], tensor):
            problems.append(f"{name} differs from its duplicate")
        elif ours in shapes and ours not in found:
            if not torch.isfinite(tensor).all():
                problems.append(f"{name} has NaN or infinite values")
            found[ours] = tensor
    problems += [f"{name} (our name) is missing" for name in shapes if name not in found]
    if problems:
        more = f", and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise BundleError(f"{source} does not fit the network: {'; '.join(problems[:5])}{more}.")
    copies = {name: tensor.to(torch.float32, copy=True) for name, tensor in found.items()}
    network.load_state_dict(copies, assign=True)
    return network.requires_grad_(True).eval()


def rename(name: str, *, stages: int) -> str:
    """Return our name of a released tensor of a network with that many stages."""
    for pattern, replacement in RENAMING:
        name = re.sub(pattern, replacement.replace("{last}", str(stages - 1)), name)
    return name


def _model_spec(
    plans: dict[str, Any], dataset: dict[str, Any], trainer: str, configuration: str
) -> ModelSpec:
    if trainer not in VARIANTS:
        raise BundleError(
            f"The checkpoint was trained by {trainer!r}, expected one of {', '.join(VARIANTS)}."
        )
    variant = VARIANTS[trainer]
    plan = _configuration(plans, configuration)
    dimension: Literal[2, 3] = 2 if len(plan["patch_size"]) == 2 else 3
    labels = _labels(dataset["labels"])
    channels = dataset["channel_names"]
    names = tuple(str(channels[str(index)]) for index in range(len(channels)))
    return ModelSpec(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{plans['dataset_name']}-{variant}-{configuration}").strip(
            "-"
        )[:64],
        description=f"Imported from {trainer}, configuration {configuration} of {plans['dataset_name']}.",
        dimension=dimension,
        input_channels=len(names),
        channel_names=names,
        task="classes",
        labels=labels,
        network=_network_spec(plan, variant, dimension),
        normalisation=_normalisation(plans, plan, len(names)),
        patch_size=tuple(plan["patch_size"]),
        spacing=tuple(plan["spacing"]),
        spacing_unit="mm",
    )


def _configuration(plans: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a configuration with the fields it inherits filled in."""
    chain: list[dict[str, Any]] = []
    parent: str | None = name
    while parent is not None:
        if parent not in plans["configurations"]:
            raise BundleError(f'plans.json: there is no configuration "{parent}".')
        if len(chain) == len(plans["configurations"]):
            raise BundleError(f'plans.json: configuration "{name}" inherits from itself.')
        chain.append(plans["configurations"][parent])
        parent = chain[-1].get("inherits_from")
    return {field: value for plan in reversed(chain) for field, value in plan.items()}


def _network_spec(plan: dict[str, Any], variant: Literal["bot", "enc"], dimension: int) -> NetworkSpec:
    kernels = tuple(tuple(kernel) for kernel in plan["conv_kernel_sizes"])
    stages = len(kernels)
    encoder = list(plan["n_conv_per_stage_encoder"])
    decoder = list(plan["n_conv_per_stage_decoder"])
    # The release keeps one block in the deeper half, whatever the plans say.
    encoder[math.ceil(stages / 2) :] = [1] * (stages - math.ceil(stages / 2))
    first_single = math.ceil((stages - 1) / 2 + 0.5)
    decoder[first_single:] = [1] * (stages - 1 - first_single)
    base, most = plan["UNet_base_num_features"], plan["unet_max_num_features"]
    return NetworkSpec(
        variant=variant,
        features=tuple(min(base * 2**stage, most) for stage in range(stages)),
        kernels=kernels,
        strides=tuple(tuple(stride) for stride in plan["pool_op_kernel_sizes"]),
        encoder_blocks=tuple(encoder),
        decoder_blocks=tuple(decoder),
        channel_tokens=variant == "enc",
        finest_skip=dimension == 3,
    )


def _normalisation(plans: dict[str, Any], plan: dict[str, Any], channels: int) -> tuple[Normalisation, ...]:
    if any(plan["use_mask_for_norm"]):
        raise BundleError(
            "plans.json: use_mask_for_norm is true, which is not supported yet: "
            "intensities are normalised over the whole image."
        )
    properties = plans["foreground_intensity_properties_per_channel"]
    return tuple(
        _channel_normalisation(plan["normalization_schemes"][index], properties.get(str(index), {}))
        for index in range(channels)
    )


def _channel_normalisation(scheme: str, properties: dict[str, float]) -> Normalisation:
    if scheme not in SCHEMES:
        raise BundleError(f"plans.json: normalization {scheme!r} is unknown, expected {', '.join(SCHEMES)}.")
    if SCHEMES[scheme] != "ct":
        return Normalisation(scheme=SCHEMES[scheme])
    return Normalisation(
        scheme="ct",
        low=properties["percentile_00_5"],
        high=properties["percentile_99_5"],
        mean=properties["mean"],
        std=max(properties["std"], 1e-8),
    )


def _labels(labels: dict[str, Any]) -> tuple[Label, ...]:
    regions = [name for name, value in labels.items() if not isinstance(value, int)]
    if regions:
        raise BundleError(f"dataset.json: label {regions[0]!r} is a region, which is not supported.")
    # As in nnU-Net the ignore label is no output of the network.
    found = sorted((value, name) for name, value in labels.items() if name != "ignore" and value != 0)
    return tuple(Label(value=value, name=name) for value, name in found)


def _find_checkpoint(folder: Path, checkpoint: str) -> Path:
    if Path(checkpoint).name != checkpoint:
        raise BundleError(f'checkpoint is "{checkpoint}", expected the name of a file in a fold\'s folder.')
    found = [path for path in folder.glob("fold_*") if (path / checkpoint).is_file()]
    if not found:
        raise BundleError(f"{folder} has no fold_*/{checkpoint}.", "Give another checkpoint name.")
    found.sort(key=lambda path: (path.name != "fold_all", len(path.name), path.name))
    return found[0] / checkpoint


def _read_json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    if not path.is_file():
        raise BundleError(
            f"{folder} has no {name}.",
            "Give the folder <trainer>__<plans>__<configuration> of the results folder.",
        )
    return parse_json_object(read_plain_file(path, MAX_JSON_BYTES), str(path))


def _check_archive(path: Path) -> None:
    """Refuse archives that would unpack to more than they are."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise BundleError(
                f"{path}: entry {entry.filename[:100]!r} is compressed, which torch never writes."
            )
        if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE_BYTES:
            raise BundleError(
                f"{path}: its pickle has {entry.file_size} bytes, expected at most {MAX_PICKLE_BYTES}."
            )


def _numpy_scalars() -> list[Any]:
    """Return what numpy scalars need, under the names of numpy 1 and 2."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(name)) for name in ("bool", "int32", "int64", "float16", "float32", "float64")]
    return [
        (scalar, "numpy.core.multiarray.scalar"),
        (scalar, "numpy._core.multiarray.scalar"),
        np.dtype,
        *kinds,
    ]


def _same(one: Tensor, other: Tensor) -> bool:
    shared = one.data_ptr() == other.data_ptr() and one.stride() == other.stride()
    return (shared and one.dtype == other.dtype) or torch.equal(one, other)
