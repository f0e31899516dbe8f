"""Where crops are taken from: warps drawn on the CPU, coordinates made on the device."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from xlstm_unet.learn.bank import Bank, send
from xlstm_unet.learn.config import Geometry, TrainConfig

_CONTROL_SPACING = 64


@dataclass(frozen=True)
class Warps:
    """One warp a crop: pixel ``u``, from the crop's middle, is at ``centre + matrix @ (u + elastic(u))``.

    Parameters
    ----------
    centre
        (B, axes) in pixels of the image.
    matrix
        (B, axes, axes).
    control
        Elastic displacement at a coarse grid, (B, axes, *grid), in pixels of the crop.
    """

    centre: Tensor
    matrix: Tensor
    control: Tensor

    def coordinates(self, size: tuple[int, ...], device: torch.device) -> Tensor:
        """Return where each pixel of the crops lies in its image: (B, *size, axes), float32."""
        axes = len(size)
        lines = [torch.arange(n, dtype=torch.float32, device=device) - (n - 1) / 2 for n in size]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)[None]
        if self.control.numel():
            mode = "bicubic" if axes == 2 else "trilinear"
            control = send(self.control, device)
            grid = grid + interpolate(control, size=size, mode=mode, align_corners=True).movedim(1, -1)
        matrix, centre = send(self.matrix, device), send(self.centre, device)
        warped = torch.einsum("bij,b...j->b...i", matrix, grid.expand(len(matrix), *size, axes))
        return warped + centre.view(-1, *([1] * axes), axes)


def draw_warps(
    bank: Bank, images: Tensor, size: tuple[int, ...], config: TrainConfig, generator: torch.Generator
) -> Warps:
    """Draw a warp for each crop of a batch.

    Parameters
    ----------
    bank
        Images to crop from.
    images
        Number of the image of each crop, (B,), on the CPU.
    size
        Size of the crops.
    config
        Geometry, flips and the share of crops placed around labelled pixels.
    generator
        Source of all random numbers, on the CPU.
    """
    batch, axes = len(images), len(size)
    geometry = config.geometry
    warped = torch.rand(batch, generator=generator) < geometry.probability
    quarter = _quarter_turns(batch, config.flips, generator)
    matrix = torch.where(
        warped[:, None, None], _linear(bank.diameters[images], axes, geometry, generator), torch.eye(axes)
    )
    matrix = matrix @ quarter
    elastic = warped & (torch.rand(batch, generator=generator) < geometry.elastic_probability)
    control = _control(elastic, size, geometry.elastic_pixels, generator)
    centre = _centres(bank, images, size, matrix, config.sampling.foreground, generator)
    # Crops that are not warped keep the pixels as they are: their coordinates fall on whole pixels.
    whole = torch.tensor([(n - 1) / 2 % 1 for n in size])
    centre = torch.where(warped[:, None], centre, (centre - whole).round() + whole)
    return Warps(centre, matrix, control)


def _quarter_turns(batch: int, flips: tuple[bool, ...], generator: torch.Generator) -> Tensor:
    """Random mirrorings, and exchange of the last two axes where both may be mirrored: (B, axes, axes)."""
    axes = len(flips)
    mirrored = torch.rand(batch, axes, generator=generator) < 0.5
    signs = torch.where(mirrored & torch.tensor(flips), -1.0, 1.0)
    matrix = torch.diag_embed(signs)
    if all(flips[-2:]):
        exchanged = torch.rand(batch, generator=generator) < 0.5
        order = [*range(axes - 2), axes - 1, axes - 2]
        matrix = torch.where(exchanged[:, None, None], matrix[:, order], matrix)
    return matrix


def _linear(diameters: Tensor, axes: int, geometry: Geometry, generator: torch.Generator) -> Tensor:
    """Random rotation and magnification: (B, axes, axes), from crop to image pixels."""
    batch = len(diameters)
    low, high = geometry.scale
    known = torch.nan_to_num(diameters, nan=1.0).clamp(min=1e-3)
    has_objects = ~torch.isnan(diameters)
    lows = torch.where(has_objects, (geometry.min_diameter / known).clamp(low, max(low, 1.0)), low)
    highs = torch.where(has_objects, (geometry.max_diameter / known).clamp(min(high, 1.0), high), high)
    share = torch.rand(batch, 1, generator=generator)
    scale = torch.exp(torch.lerp(lows.log()[:, None], torch.maximum(lows, highs).log()[:, None], share))
    stretch = torch.rand(batch, axes, generator=generator) - 0.5
    scale = scale * torch.exp(stretch * math.log(geometry.aspect))
    matrix = torch.diag_embed(1.0 / scale)
    planes = [(axes - 2, axes - 1, geometry.rotation_degrees)]
    if axes == 3:
        planes += [(0, 1, geometry.tilt_degrees), (0, 2, geometry.tilt_degrees)]
    for first, second, limit in planes:
        angle = (2 * torch.rand(batch, generator=generator) - 1) * math.radians(limit)
        turn = torch.eye(axes).repeat(batch, 1, 1)
        turn[:, first, first] = turn[:, second, second] = torch.cos(angle)
        turn[:, first, second], turn[:, second, first] = -torch.sin(angle), torch.sin(angle)
        matrix = turn @ matrix
    return matrix


def _control(elastic: Tensor, size: tuple[int, ...], pixels: float, generator: torch.Generator) -> Tensor:
    """Displacements at control points, zero without elastic warp: (B, axes, *grid), or an empty grid."""
    grid = [max(3, n // _CONTROL_SPACING + 2) for n in size]
    drawn = torch.randn(len(elastic), len(size), *grid, generator=generator) * pixels
    if not elastic.any():
        return drawn.flatten(2)[..., :0]
    return drawn * elastic.view(-1, 1, *([1] * len(size)))


def _centres(
    bank: Bank,
    images: Tensor,
    size: tuple[int, ...],
    matrix: Tensor,
    foreground: float,
    generator: torch.Generator,
) -> Tensor:
    """Middle of each crop, near a labelled pixel or anywhere, with as much of it in the image as fits."""
    shape = bank.shapes[images].float()
    extent = torch.tensor(size, dtype=torch.float32)
    half = (matrix.abs() @ extent) / 2
    low, high = torch.minimum(half, shape - 1 - half), torch.maximum(half, shape - 1 - half)
    anywhere = torch.lerp(low, high, torch.rand(len(images), len(size), generator=generator))
    chosen = torch.rand(len(images), generator=generator) < foreground
    pick = torch.rand(len(images), generator=generator)
    jitter = (torch.rand(len(images), len(size), generator=generator) - 0.5) * extent / 2
    around = anywhere.clone()
    for row, image in enumerate(images.tolist()):
        anchors = bank.anchors[image]
        if len(anchors):
            around[row] = anchors[int(pick[row] * len(anchors))] + jitter[row]
    around = torch.minimum(torch.maximum(around, low), high)
    return torch.where(chosen[:, None], around, anywhere)
