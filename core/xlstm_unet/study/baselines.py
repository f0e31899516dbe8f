"""What models are compared with: thresholding, and a plain U-Net of equal cost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch.utils.flop_counter import FlopCounterMode

from xlstm_unet.errors import ImageError
from xlstm_unet.images import Image
from xlstm_unet.nets import Network
from xlstm_unet.nets.blocks import NEGATIVE_SLOPE, convolution
from xlstm_unet.nets.norm import InstanceNorm
from xlstm_unet.spec import ModelSpec, NetworkSpec

IMAGE_SIGMA, DISTANCE_SIGMA = 0.5, 2.0
"""Gaussian smoothing of the image and of the distance map, in pixels."""
PEAK_DISTANCE = 5
"""Least distance between the centres of two objects in pixels."""
MIN_SIZE = 30
"""Smaller objects are dropped."""


def otsu_watershed(image: Image) -> NDArray[np.int32]:
    """Segment by Otsu's threshold and a watershed of the distance to the background.

    The rarer side of the threshold is taken as objects, so images with dark objects are inverted by
    themselves. Source: Otsu 1979; the usual first pipeline of bioimage analysis.

    Parameters
    ----------
    image
        One plane or volume; channels are averaged.

    Returns
    -------
    labels
        int32, axes ``image.label_axes``.

    Raises
    ------
    ImageError
        For a time series.
    """
    from scipy import ndimage
    from skimage.feature import peak_local_max
    from skimage.filters import threshold_otsu
    from skimage.segmentation import watershed

    if "T" in image.axes:
        raise ImageError(f"{image.name}: axes {image.axes}, expected a single image.", "Pass frame by frame.")
    values = image.array.astype(np.float32)
    if "C" in image.axes:
        values = values.mean(axis=image.axes.index("C"))
    values = ndimage.gaussian_filter(values, IMAGE_SIGMA)
    if values.min() == values.max():
        return np.zeros(values.shape, dtype=np.int32)
    inside = values > threshold_otsu(values)  # type: ignore[no-untyped-call]
    if 2 * np.count_nonzero(inside) > inside.size:
        inside = ~inside
    inside = ndimage.binary_fill_holes(inside)
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(inside), DISTANCE_SIGMA)
    parts, _ = ndimage.label(inside)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        distance, min_distance=PEAK_DISTANCE, labels=parts, exclude_border=False
    )
    seeds = np.zeros(values.shape, dtype=np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-distance, seeds, mask=inside)  # type: ignore[no-untyped-call]
    labels = np.asarray(labels, dtype=np.int32)
    labels[np.bincount(labels.ravel())[labels] < MIN_SIZE] = 0
    return labels


class PlainUNet(Network):
    """U-Net of plain blocks: two normalised convolutions a level, nothing residual, no ViL layer.

    Source: Ronneberger et al. 2015, with the strides, upsampling, skips and head of our network, so that
    both go through one training.

    Parameters
    ----------
    spec
        Model; widths, kernels and strides of its network are used, the numbers of blocks are not.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(_without_mixer(spec))
        self.spec = spec
        network = spec.network
        self.stem = nn.Sequential()
        inputs = spec.input_channels
        for stage, width, kernel, stride in zip(
            self.encoder, network.features, network.kernels, network.strides, strict=True
        ):
            stage.blocks = nn.Sequential(DoubleConvolution(inputs, width, kernel, stride))
            inputs = width
        for step, width, kernel in zip(
            self.decoder, network.features[-2::-1], network.kernels[-2::-1], strict=True
        ):
            joined = width * (1 + bool(step.concatenates))
            step.blocks = nn.Sequential(DoubleConvolution(joined, width, kernel, [1] * spec.dimension))


class DoubleConvolution(nn.Module):
    """``act(norm(conv(act(norm(conv(x))))))``.

    Parameters
    ----------
    inputs, outputs
        Channels in and out.
    kernel, stride
        One number an axis; the stride is that of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = convolution(inputs, outputs, kernel, stride)
        self.norm1 = InstanceNorm(outputs)
        self.conv2 = convolution(outputs, outputs, kernel)
        self.norm2 = InstanceNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, *spatial) to (B, outputs, *spatial / stride)."""
        x = leaky_relu(self.norm1(self.conv1(x)), NEGATIVE_SLOPE, inplace=True)
        return leaky_relu(self.norm2(self.conv2(x)), NEGATIVE_SLOPE, inplace=True)


def plain_unet_spec(spec: ModelSpec, *, multiple: int = 8) -> ModelSpec:
    """Return a model whose `PlainUNet` costs about as many multiplications as the model's own network.

    All widths are scaled by one factor and rounded to a multiple of ``multiple`` (odd widths take several
    times longer on CPUs); what ViL layers cost is left out of the count.
    """
    aim = convolution_flops(Network, _without_mixer(spec))
    first = (aim / convolution_flops(PlainUNet, spec)) ** 0.5
    candidates = [
        _with_features(
            spec, tuple(max(multiple, multiple * round(f * scale / multiple)) for f in spec.network.features)
        )
        for scale in np.linspace(0.92, 1.08, 9) * first
    ]
    return min(candidates, key=lambda candidate: abs(convolution_flops(PlainUNet, candidate) - aim))


def convolution_flops(network_type: type[Network], spec: ModelSpec) -> int:
    """Return the floating-point operations of one forward pass of a patch, without computing it."""
    with torch.device("meta"), torch.no_grad():
        network = network_type(spec)
        with FlopCounterMode(display=False) as counter:
            network(torch.empty(1, spec.input_channels, *spec.patch_size))
    return int(counter.get_total_flops())


def _without_mixer(spec: ModelSpec) -> ModelSpec:
    return _with_network(spec, spec.network.model_copy(update={"variant": "bot", "mixer": "none"}))


def _with_features(spec: ModelSpec, features: tuple[int, ...]) -> ModelSpec:
    return _with_network(spec, spec.network.model_copy(update={"features": features}))


def _with_network(spec: ModelSpec, network: NetworkSpec) -> ModelSpec:
    return spec.model_copy(update={"network": network})
