"""What plans and dataset of nnU-Net say about a model, as our specification."""

from __future__ import annotations

import math
import re
from typing import Any, Literal

from xlstm_unet.errors import BundleError
from xlstm_unet.spec import Label, ModelSpec, NetworkSpec, Normalisation, Region

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

PICTURE_READERS = ("NaturalImage2DIO",)
"""Readers of nnU-Net that know no physical size of a pixel: their spacing of 1 means nothing."""

ORIENTATIONS = {"NibabelIOWithReorient": "SAR"}
"""Where the axes (Z, Y, X) point that a reader of nnU-Net turns volumes to; others leave them as stored."""


def model_spec(
    plans: dict[str, Any], dataset: dict[str, Any], checkpoint: dict[str, Any], folds: int
) -> ModelSpec:
    """Return the specification of a trained model.

    Parameters
    ----------
    plans, dataset
        Contents of ``plans.json`` and ``dataset.json``.
    checkpoint
        Trainer, configuration and mirroring, as `xlstm_unet.zoo.nnunet_weights.read_checkpoint` gives them.
    folds
        Number of networks.

    Raises
    ------
    BundleError
        If the model is not one of the released kinds.
    KeyError, TypeError, ValueError, AttributeError, IndexError
        If a field is missing or of another type.
    """
    trainer, configuration = checkpoint["trainer_name"], checkpoint["init_args"]["configuration"]
    if trainer not in VARIANTS:
        raise BundleError(
            f"The checkpoint was trained by {trainer!r}, expected one of {', '.join(VARIANTS)}."
        )
    variant = VARIANTS[trainer]
    plan = _configuration(plans, configuration)
    if plan.get("previous_stage"):
        raise BundleError(
            f"Configuration {configuration} refines what {plan['previous_stage']} found.",
            "Such cascades are not run: import a configuration that stands alone.",
        )
    dimension: Literal[2, 3] = 2 if len(plan["patch_size"]) == 2 else 3
    labels, regions = _labels_and_regions(dataset)
    channels = dataset["channel_names"]
    names = tuple(str(channels[str(index)]) for index in range(len(channels)))
    reader = plans.get("image_reader_writer", "")
    physical = reader not in PICTURE_READERS
    mirrored = checkpoint.get("inference_allowed_mirroring_axes")
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
        regions=regions,
        network=_network_spec(plan, variant, dimension),
        folds=folds,
        normalisation=_normalisation(plans, plan, len(names)),
        pipeline="nnunet",
        orientation=ORIENTATIONS.get(reader),
        transpose=tuple(plans.get("transpose_forward", (0, 1, 2))),
        patch_size=tuple(plan["patch_size"]),
        spacing=tuple(plan["spacing"]) if physical else None,
        spacing_unit="mm" if physical else None,
        mirror_axes=tuple(mirrored or ()),
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
    properties = plans["foreground_intensity_properties_per_channel"]
    schemes, masked = plan["normalization_schemes"], plan["use_mask_for_norm"]
    return tuple(
        _channel_normalisation(schemes[index], bool(masked[index]), properties.get(str(index), {}))
        for index in range(channels)
    )


def _channel_normalisation(scheme: str, masked: bool, properties: dict[str, float]) -> Normalisation:
    if scheme not in SCHEMES:
        raise BundleError(f"plans.json: normalization {scheme!r} is unknown, expected {', '.join(SCHEMES)}.")
    if SCHEMES[scheme] != "ct":
        # As in nnU-Net no other scheme looks at the mask.
        return Normalisation(scheme=SCHEMES[scheme], masked=masked and SCHEMES[scheme] == "zscore")
    return Normalisation(
        scheme="ct",
        low=properties["percentile_00_5"],
        high=properties["percentile_99_5"],
        mean=properties["mean"],
        std=max(properties["std"], 1e-8),
    )


def _labels_and_regions(dataset: dict[str, Any]) -> tuple[tuple[Label, ...], tuple[Region, ...]]:
    """Return the labels and, where labels are regions, these as the outputs of the network."""
    # As in nnU-Net the ignore label is no output of the network.
    named = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    if all(isinstance(value, int) for value in named.values()):
        found = sorted((value, name) for name, value in named.items() if value != 0)
        return tuple(Label(value=value, name=name) for value, name in found), ()
    regions = {name: _values(name, value) for name, value in named.items()}
    regions = {name: values for name, values in regions.items() if any(values)}
    paints = [int(value) for value in dataset["regions_class_order"]]
    if len(paints) != len(regions):
        raise ValueError(f"regions_class_order has {len(paints)} entries, expected {len(regions)}")
    outputs = tuple(
        Region(name=name, values=values, paint=paint)
        for (name, values), paint in zip(regions.items(), paints, strict=True)
    )
    # What is painted over is left with the rest of its region.
    names = {r.paint: r.name if r.values == (r.paint,) else f"rest of {r.name}" for r in outputs}
    numbers = sorted({*paints, *(value for region in outputs for value in region.values)})
    return tuple(Label(value=n, name=names.get(n, f"label {n}")) for n in numbers), outputs


def _values(name: str, value: Any) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values or any(type(number) is not int for number in values):
        raise ValueError(f"label {name} is {value!r}, expected a number or a list of numbers")
    return values
