"""A model for other software: the bioimage.io format, with weights as TorchScript.

The network is traced at the model's patch size and gives what the segmenter works with: probabilities and
distances. Scaling intensities is described in the format's own words; resampling to the model's scale and
finding single objects are left to the software that runs it. The test image is made up, so no image travels.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import ModelError
from xlstm_unet.files import atomic_path
from xlstm_unet.images.prepare import PERCENTILE_RANGE, fit_normalisation
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.bundle import read_bundle
from xlstm_unet.zoo.card_text import CardText

if TYPE_CHECKING:
    import torch

FORMAT = "0.5.4"
"""Version of the bioimage.io model format that is written."""

_SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT"}
_UNITS = {"µm": "micrometer", "mm": "millimeter"}
_CITE = {
    "text": "Chen T et al. (2024): xLSTM-UNet can be an effective 2D & 3D medical image backbone.",
    "doi": "10.48550/arXiv.2407.01530",
}


def export_bioimageio(folder: Path, target: Path, *, authors: Sequence[str] = ()) -> Path:
    """Write a model as a bioimage.io package.

    Parameters
    ----------
    folder
        The model.
    target
        The zip; one that is there is replaced.
    authors
        Names of those who made the model.

    Raises
    ------
    BundleError
        If the model is damaged.
    ModelError
        If the format cannot say how the model prepares its images.
    OutputError
        If the zip cannot be written.
    """
    import torch

    bundle = read_bundle(folder)
    spec = bundle.spec
    preprocessing = _preprocessing(spec)
    image = _test_image(spec)
    normalised = fit_normalisation(image[0], spec.normalisation)(image[0])[None]
    example = torch.from_numpy(normalised)
    with torch.inference_mode():
        traced = _trace(bundle.build().requires_grad_(False), spec, example)
        output: NDArray[np.float32] = traced(example).numpy()
    files = {
        "weights.pt": _saved(traced),
        "test_input.npy": _npy(image),
        "test_output.npy": _npy(output),
        "README.md": _document(spec, bundle.card),
    }
    if bundle.licence:
        files["LICENSE"] = bundle.licence.encode("utf-8")
    description = _description(spec, bundle.card, files, preprocessing, output.shape, authors)
    files["rdf.yaml"] = json.dumps(description, indent=2, ensure_ascii=False).encode("utf-8")  # JSON is YAML
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return target


def _trace(network: torch.nn.Module, spec: ModelSpec, example: torch.Tensor) -> torch.jit.ScriptModule:
    import torch

    class Probabilities(torch.nn.Module):
        """The network, with what the segmenter makes of its logits."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits = self.network(image)
            if spec.regions:
                return torch.sigmoid(logits)
            if spec.task == "classes":
                return torch.softmax(logits, dim=1)
            objects = logits[:, 1:3].logsumexp(dim=1) - logits[:, 0]
            return torch.stack((torch.sigmoid(objects), logits[:, 3].clamp(0, 1)), dim=1)

    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # that sizes are fixed is meant; that tracing is old-fashioned is known
        return torch.jit.trace(Probabilities().eval(), example, check_trace=False)  # type: ignore[no-any-return,no-untyped-call]


def _saved(traced: torch.jit.ScriptModule) -> bytes:
    import torch

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def _npy(array: NDArray[np.float32]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _test_image(spec: ModelSpec) -> NDArray[np.float32]:
    """Round objects on a noisy ground, (1, C, *patch): the same for the same model."""
    drawn = np.random.default_rng(0)
    grid = np.meshgrid(*(np.arange(n) for n in spec.patch_size), indexing="ij")
    radius = (spec.object_diameter or min(spec.patch_size) / 6) / 2
    image = drawn.normal(100.0, 6.0, (spec.input_channels, *spec.patch_size))
    for _ in range(12):
        centre = [drawn.uniform(0, n) for n in spec.patch_size]
        distance = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
        image += 80.0 * np.exp(-distance / (2 * (0.6 * radius) ** 2))
    return image[None].astype(np.float32)


def _preprocessing(spec: ModelSpec) -> list[dict[str, Any]]:
    """The scaling of intensities in the words of the format."""
    schemes = {scheme.scheme for scheme in spec.normalisation}
    each = len(spec.normalisation) > 1
    first = spec.normalisation[0]
    if len(schemes) > 1 or first.masked or (each and first.scheme == "rgb01"):
        raise ModelError(
            f"Model {spec.name} scales its images in a way that bioimage.io has no words for "
            f"({', '.join(sorted(schemes))}{', masked' if first.masked else ''}).",
            "Export it as a zip: other xLSTM-UNet installations take that.",
        )
    axes = [*([] if each else ["channel"]), *_space(spec)]
    match first.scheme:
        case "percentile":
            if len({(scheme.low, scheme.high) for scheme in spec.normalisation}) > 1:
                raise ModelError(
                    f"Model {spec.name} has other percentiles for each channel.", "Export a zip."
                )
            limits = {"min_percentile": first.low, "max_percentile": first.high}
            low, high = PERCENTILE_RANGE
            return [
                {"id": "scale_range", "kwargs": {"axes": axes, **limits, "eps": 1e-12}},
                {"id": "clip", "kwargs": {"min": low, "max": high}},
            ]
        case "zscore":
            return [{"id": "zero_mean_unit_variance", "kwargs": {"axes": axes, "eps": 1e-12}}]
        case "rescale01":
            return [{"id": "scale_range", "kwargs": {"axes": axes, "eps": 1e-12}}]
        case "rgb01":
            return [{"id": "scale_linear", "kwargs": {"gain": 1 / 255, "offset": 0.0}}]
        case "ct":
            return _ct(spec, each)
        case "none":
            return []


def _ct(spec: ModelSpec, each: bool) -> list[dict[str, Any]]:
    if len({(scheme.low, scheme.high) for scheme in spec.normalisation}) > 1:
        raise ModelError(f"Model {spec.name} clips each channel elsewhere.", "Export a zip.")
    first = spec.normalisation[0]
    kwargs: dict[str, Any] = {"mean": first.mean, "std": first.std}
    if each:
        kwargs = {
            "axis": "channel",
            "mean": [scheme.mean for scheme in spec.normalisation],
            "std": [scheme.std for scheme in spec.normalisation],
        }
    return [
        {"id": "clip", "kwargs": {"min": first.low, "max": first.high}},
        {"id": "fixed_zero_mean_unit_variance", "kwargs": kwargs},
    ]


def _space(spec: ModelSpec) -> list[str]:
    return list("zyx"[-spec.dimension :])


def _channels(spec: ModelSpec) -> list[str]:
    """Names of the outputs."""
    if spec.task == "instances":
        return ["probability", "distance"]
    if spec.regions:
        return [region.name for region in spec.regions]
    return ["background", *(label.name for label in spec.labels)]


def _description(
    spec: ModelSpec,
    card: str,
    files: Mapping[str, bytes],
    preprocessing: list[dict[str, Any]],
    output_shape: tuple[int, ...],
    authors: Sequence[str],
) -> dict[str, Any]:
    import torch

    sums = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    spacing = spec.spacing or (1.0,) * spec.dimension
    space = [
        {
            "type": "space",
            "id": axis,
            "scale": step,
            **({"unit": _UNITS[spec.spacing_unit]} if spec.spacing_unit else {}),
        }
        for axis, step in zip(_space(spec), spacing, strict=True)
    ]
    names = list(spec.channel_names) or [f"channel{i}" for i in range(spec.input_channels)]
    licence = CardText.parse(card).licence()
    found = {
        "format_version": FORMAT,
        "type": "model",
        "name": f"xLSTM-UNet {spec.name}",
        "description": (spec.description or "A segmentation model.")[:500],
        "authors": [{"name": name} for name in authors],
        "cite": [_CITE],
        "documentation": "README.md",
        "tags": ["segmentation", "xlstm-unet", "pytorch", f"{spec.dimension}d", spec.task],
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": [
            {
                "id": "image",
                "description": f"Image; {_scale_text(spec)}",
                "axes": [
                    {"type": "batch", "size": 1},
                    {"type": "channel", "channel_names": names},
                    *({**axis, "size": n} for axis, n in zip(space, spec.patch_size, strict=True)),
                ],
                "data": {"type": "float32"},
                "preprocessing": preprocessing,
                "test_tensor": {"source": "test_input.npy", "sha256": sums["test_input.npy"]},
            }
        ],
        "outputs": [
            {
                "id": "maps",
                "description": "Probabilities from 0 to 1; for objects also a distance, 1 in their middle.",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": _channels(spec)},
                    *(
                        {**axis, "halo": n // 8, "size": {"tensor_id": "image", "axis_id": axis["id"]}}
                        for axis, n in zip(space, output_shape[2:], strict=True)
                    ),
                ],
                "data": {"type": "float32"},
                "test_tensor": {"source": "test_output.npy", "sha256": sums["test_output.npy"]},
            }
        ],
        "weights": {
            "torchscript": {
                "source": "weights.pt",
                "sha256": sums["weights.pt"],
                "pytorch_version": torch.__version__.split("+")[0],
            }
        },
    }
    if spdx := _SPDX.get(licence, licence.upper() if licence.startswith("cc") else ""):
        found["license"] = spdx
    if "LICENSE" in files:
        found["attachments"] = [{"source": "LICENSE", "sha256": sums["LICENSE"]}]
    return found


def _scale_text(spec: ModelSpec) -> str:
    if spec.spacing is not None:
        size = " x ".join(f"{step:g}" for step in spec.spacing)
        return f"resample it to {size} {spec.spacing_unit} a voxel first."
    if spec.object_diameter is not None:
        return f"resample it so that objects are about {spec.object_diameter:g} pixels across."
    return "at the resolution it was trained on."


def _document(spec: ModelSpec, card: str) -> bytes:
    """The card without what only the Hub reads, and how the outputs become labels."""
    parsed = CardText.parse(card)
    parts = {name: text for name, text in parsed.parts.items() if name not in ("front matter", "Use")}
    if "Scores" in parts:
        parts = {("Validation" if name == "Scores" else name): text for name, text in parts.items()}
    if spec.task == "instances":
        parts["From maps to objects"] = (
            f"Seeds are the maxima of the distance that rise by {spec.decoding.seed_height:g} or more; a "
            f"watershed from them fills where the probability is {spec.decoding.threshold:g} or more."
        )
    parts["Where it is from"] = "Exported from xLSTM-UNet, which also resamples, tiles and finds objects."
    return str(CardText(parts)).encode("utf-8")
