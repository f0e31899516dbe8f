"""Changes of pixel values: parameters drawn on the CPU, applied to whole batches on the device.

Every change has a neutral setting, so a batch is one chain of operations without branches or waits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d, interpolate

from xlstm_unet.learn.bank import send
from xlstm_unet.learn.config import Intensity
from xlstm_unet.spec import ModelSpec

_BLUR_RADIUS = 6
_STANDARDISED = ("zscore", "ct")
_LUMINANCE = torch.tensor([0.299, 0.587, 0.114])


def unit_range(spec: ModelSpec) -> tuple[Tensor, Tensor]:
    """Return what 0 and 1 are, for the changes here, in each channel of a model's normalised images.

    Returns
    -------
    low, high
        (C, 1, ...) float32: 0 and 1 for schemes that scale to this range, -2 and 2 for z-scores.
    """
    schemes = spec.normalisation * (spec.input_channels if len(spec.normalisation) == 1 else 1)
    wide = torch.tensor([2.0 if entry.scheme in _STANDARDISED else 0.0 for entry in schemes])
    wide = wide.view(-1, *([1] * spec.dimension))
    return -wide, torch.where(wide > 0, wide, 1.0)


def change_intensity(
    image: Tensor, gray: Tensor, config: Intensity, generator: torch.Generator, noise: torch.Generator
) -> Tensor:
    """Return a batch with changed colours, contrast, sharpness and noise.

    Parameters
    ----------
    image
        (B, C, *spatial), float32, normalised to about 0 to 1.
    gray
        Whether the channels of each image are equal, (B,), on the CPU.
    config
        How often and how much.
    generator
        Source of the parameters, on the CPU.
    noise
        Source of the pixel noise, on the device of ``image``.
    """
    draw = _Draw(len(image), config.strength, generator)
    spatial = image.ndim - 2

    def spread(values: Tensor) -> Tensor:
        return send(values, image.device).view(len(values), -1, *([1] * spatial))

    if image.shape[1] > 1:
        mixing = send(_colour_matrices(image.shape[1], gray, config, draw), image.device)
        image = torch.einsum("bij,bj...->bi...", mixing, image)
    if config.shading:
        image = image * _shading(image, draw, config.shading)
    inverted = draw.chance(config.invert).float()
    gain = draw.factor(config.contrast, 0.5)
    shift = draw.signed(config.contrast, 0.15)
    gamma = draw.factor(config.gamma, 0.6)
    image = image + spread(inverted) * (1 - 2 * image)
    image = torch.where(image > 0, image.clamp(min=1e-4) ** spread(gamma), image)
    image = (image - 0.5) * spread(gain) + 0.5 + spread(shift)
    coarse = draw.chance(config.coarse)
    factor = int(torch.randint(2, 5, (), generator=generator))
    if coarse.any():
        image = torch.lerp(image, _coarsened(image, factor), spread(coarse.float()))
    image = _blurred(image, draw.amount(config.blur, 2.0))
    constant, signal = spread(draw.amount(config.noise, 0.12)), spread(draw.amount(config.noise, 0.12))
    grain = torch.randn(image.shape, generator=noise, device=image.device)
    return image + grain * (constant + signal * image.clamp(min=0).sqrt())


def empty_patches(image: Tensor, noise: torch.Generator) -> Tensor:
    """Return images of the same shape without any object: a flat or slanted background with noise."""
    shape = image.shape
    axes = len(shape) - 2
    level = torch.rand(shape[0], 1, *([1] * axes), generator=noise, device=image.device)
    slope = torch.zeros_like(level)
    for axis in range(axes):
        line = torch.linspace(-0.5, 0.5, shape[2 + axis], device=image.device)
        line = line.view(*(-1 if a == axis else 1 for a in range(axes)))
        slope = slope + line * torch.randn(level.shape, generator=noise, device=image.device) * 0.3
    grain = torch.rand(level.shape, generator=noise, device=image.device) * 0.25
    return level + slope + grain * torch.randn(shape, generator=noise, device=image.device)


class _Draw:
    """Random parameters for a batch, neutral for crops that a change does not strike."""

    def __init__(self, batch: int, strength: float, generator: torch.Generator) -> None:
        self.batch = batch
        self.strength = strength
        self.generator = generator

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.generator)

    def chance(self, probability: float) -> Tensor:
        return self.uniform() < probability

    def amount(self, probability: float, largest: float) -> Tensor:
        """0, or up to ``largest``."""
        return self.chance(probability) * self.uniform() * largest * self.strength

    def signed(self, probability: float, largest: float) -> Tensor:
        """0, or between -``largest`` and ``largest``."""
        return self.chance(probability) * (2 * self.uniform() - 1) * largest * self.strength

    def factor(self, probability: float, log_range: float) -> Tensor:
        """1, or a factor between exp(-``log_range``) and exp(``log_range``)."""
        return torch.exp(self.signed(probability, log_range))


def _colour_matrices(channels: int, gray: Tensor, config: Intensity, draw: _Draw) -> Tensor:
    """Mixing matrix of each image, (B, C, C): gains, and for three channels hue, saturation and gray."""
    unit = torch.eye(channels).expand(draw.batch, channels, channels)
    coloured = draw.chance(config.colour)
    gains = torch.exp((2 * draw.uniform(channels) - 1) * 0.25 * draw.strength)
    matrix = torch.where((coloured & ~gray)[:, None, None], torch.diag_embed(gains), unit)
    if channels != 3:
        return matrix
    angle = draw.signed(1.0, 0.35) * coloured
    saturation = 1 + (draw.uniform() * 1.2 - 0.6) * draw.strength * coloured
    matrix = _hue_rotation(angle) @ matrix
    luminance = _LUMINANCE.expand(3, 3)
    matrix = torch.lerp(luminance.expand(draw.batch, 3, 3), matrix, saturation[:, None, None])
    matrix = torch.where(draw.chance(config.gray)[:, None, None], luminance @ matrix, matrix)
    tint = draw.uniform(3) ** 2
    tint = torch.diag_embed(tint / tint.amax(dim=1, keepdim=True))
    return torch.where((draw.chance(config.tint) & gray)[:, None, None], tint, matrix)


def _hue_rotation(angle: Tensor) -> Tensor:
    """Rotation of colours about the gray axis (Rodrigues), (B, 3, 3)."""
    axis = torch.full((3,), 1 / math.sqrt(3.0))
    cross = torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3.0)
    sine, cosine = torch.sin(angle)[:, None, None], torch.cos(angle)[:, None, None]
    return torch.eye(3) * cosine + cross * sine + torch.outer(axis, axis) * (1 - cosine)


def _shading(image: Tensor, draw: _Draw, probability: float) -> Tensor:
    """Smooth factors over the crops, (B, 1, *spatial)."""
    axes = image.ndim - 2
    control = (2 * draw.uniform(1, *([3] * axes)) - 1) * 0.4 * draw.strength
    control = control * draw.chance(probability).view(-1, 1, *([1] * axes))
    mode = "bicubic" if axes == 2 else "trilinear"
    return torch.exp(
        interpolate(send(control, image.device), size=image.shape[2:], mode=mode, align_corners=True)
    )


def _coarsened(image: Tensor, factor: int) -> Tensor:
    """Average over blocks and interpolate back."""
    pool = avg_pool2d if image.ndim == 4 else avg_pool3d
    mode = "bilinear" if image.ndim == 4 else "trilinear"
    small = pool(image, factor, ceil_mode=True) if min(image.shape[2:]) >= factor else image
    return interpolate(small, size=image.shape[2:], mode=mode, align_corners=False)


def _blurred(image: Tensor, sigmas: Tensor) -> Tensor:
    """Gaussian blur of each image by its own sigma in pixels (0 leaves it), axis by axis."""
    if not (sigmas > 0).any():
        return image
    reach = torch.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1, dtype=torch.float32)
    kernels = torch.exp(-0.5 * (reach / sigmas.clamp(min=1e-2)[:, None]) ** 2)
    kernels = send(kernels / kernels.sum(dim=1, keepdim=True), image.device)
    kernels = kernels.T.reshape(len(reach), len(image), *([1] * (image.ndim - 1)))
    for axis in range(2, image.ndim):
        length = image.shape[axis]
        before, after = image.narrow(axis, 0, 1), image.narrow(axis, length - 1, 1)
        padded = torch.cat([before] * _BLUR_RADIUS + [image] + [after] * _BLUR_RADIUS, dim=axis)
        image = padded.narrow(axis, 0, length) * kernels[0]
        for shift in range(1, len(reach)):
            image.addcmul_(padded.narrow(axis, shift, length), kernels[shift])
    return image
