"""Sample data for File > Open Sample: small real images that come with the package."""

from __future__ import annotations

from typing import Any

from xlstm_unet.images import read_image
from xlstm_unet.samples import SAMPLES, Sample

LayerData = tuple[Any, dict[str, Any], str]


def fluorescence_dense() -> list[LayerData]:
    """Fluorescent nuclei, small and bright."""
    return _layers("fluorescence_dense")


def fluorescence_dim() -> list[LayerData]:
    """Fluorescent nuclei, dim and touching."""
    return _layers("fluorescence_dim")


def fluorescence_large() -> list[LayerData]:
    """Fluorescent nuclei, large."""
    return _layers("fluorescence_large")


def histology_purple() -> list[LayerData]:
    """Stained tissue, purple on purple."""
    return _layers("histology_purple")


def histology_white() -> list[LayerData]:
    """Stained tissue, purple on white."""
    return _layers("histology_white")


def brightfield_smear() -> list[LayerData]:
    """Smear in bright field."""
    return _layers("brightfield_smear")


def hippocampus_mri() -> list[LayerData]:
    """MRI around one hippocampus."""
    return _layers("hippocampus_mri")


def _layers(name: str) -> list[LayerData]:
    sample = next(sample for sample in SAMPLES if sample.name == name)
    image = read_image(sample.image)
    if sample.dimension == 3:
        from napari_xlstm_unet.volumes import layer_of

        data, keywords = layer_of(image)
        keywords["metadata"] |= {"description": sample.description, "licence": _licence(sample)}
        return [(data, keywords, "image")]
    colour = "C" in image.axes
    array = image.array.transpose(1, 2, 0) if colour else image.array
    about = {"description": sample.description, "licence": _licence(sample)}
    return [(array, {"name": name, "rgb": colour, "metadata": about}, "image")]


def _licence(sample: Sample) -> str:
    return str(sample.image.parents[1] / "LICENSE.md")
