"""The U-Net: residual encoder with ViL layers, residual decoder with deep supervision."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod
from typing import Literal, cast, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad

from xlstm_unet.errors import ModelError
from xlstm_unet.nets.blocks import ResidualBlock, convolution, residual_blocks
from xlstm_unet.nets.vil import ViLLayer
from xlstm_unet.spec import ModelSpec

Size = tuple[int, ...]


class EncoderStage(nn.Module):
    """Residual blocks, of which the first lowers the resolution, and then what mixes positions."""

    def __init__(self, blocks: nn.Sequential, mixer: ResidualBlock | ViLLayer | nn.Identity) -> None:
        super().__init__()
        self.blocks = blocks
        self.mixer = mixer

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C_in, *spatial) to (B, C_out, *spatial / stride)."""
        return cast("Tensor", self.mixer(self.blocks(x)))


class DecoderStep(nn.Module):
    """Upsampling, the skip beside it, residual blocks, and the head of this scale.

    Parameters
    ----------
    spec
        Model; the step's widths and kernel come from its network.
    stage
        Encoder stage whose resolution this step restores.
    blocks
        Residual blocks.
    """

    def __init__(self, spec: ModelSpec, stage: int, blocks: int) -> None:
        super().__init__()
        network, width = spec.network, spec.network.features[stage]
        pointwise = [1] * spec.dimension
        self.stride = network.strides[stage + 1]
        self.concatenates = stage > 0 or network.finest_skip
        self.project = convolution(network.features[stage + 1], width, pointwise)
        self.blocks = residual_blocks(width * (1 + self.concatenates), width, blocks, network.kernels[stage])
        self.head = convolution(width, spec.output_channels, pointwise)

    def forward(self, x: Tensor, skip: Tensor | None) -> Tensor:
        """Map (B, C_coarse, *spatial) and the skip (B, C, *spatial * stride) to (B, C, *spatial * stride)."""
        # A 1x1 convolution before nearest upsampling is the same as after it, on fewer positions.
        x = interpolate(self.project(x), scale_factor=[float(s) for s in self.stride], mode="nearest")
        if skip is not None:
            x = torch.cat((x, skip), dim=1)
        return cast("Tensor", self.blocks(x))


class Network(nn.Module):
    """U-Net of the variants ``bot`` and ``enc`` as released (arXiv 2407.01530), and ``dense``.

    Parameters
    ----------
    spec
        Model whose ``network``, dimension, channels and patch size are built.

    Raises
    ------
    ModelError
        If channel tokens are asked for and the patch size is no multiple of the total stride.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        network = spec.network
        self.total_stride: Size = tuple(prod(axis) for axis in zip(*network.strides, strict=True))
        """Product of all strides, one number an axis: sizes inside are multiples of it."""
        widths = (network.features[0], *network.features)
        mixers = _mixers(spec, self.total_stride)
        self.stem = residual_blocks(
            spec.input_channels, widths[0], network.encoder_blocks[0], network.kernels[0]
        )
        self.encoder = nn.ModuleList(
            EncoderStage(residual_blocks(widths[s], widths[s + 1], count, kernel, stride), next(mixers))
            for s, (count, kernel, stride) in enumerate(
                zip(network.encoder_blocks, network.kernels, network.strides, strict=True)
            )
        )
        last = len(network.features) - 2
        self.decoder = nn.ModuleList(
            DecoderStep(spec, last - step, count) for step, count in enumerate(network.decoder_blocks)
        )

    @property
    def fixed_size(self) -> Size | None:
        """Spatial size of the only input that fits, where ViL layers have channel tokens; else None."""
        fixed = any(isinstance(m, ViLLayer) and m.channel_tokens for m in self.modules())
        return self.spec.patch_size if fixed else None

    @overload
    def forward(self, x: Tensor, *, all_scales: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, *, all_scales: Literal[True]) -> list[Tensor]: ...
    def forward(self, x: Tensor, *, all_scales: bool = False) -> Tensor | list[Tensor]:
        """Return logits, in float32 (or float64).

        Parameters
        ----------
        x
            Normalised image batch (B, C, *spatial), any floating dtype; sizes that are no multiple of the
            total stride are padded at the far end with the edge values, and the logits cropped back.
        all_scales
            Give the logits of every decoder step, for deep supervision.

        Returns
        -------
        Tensor or list of Tensor
            Finest logits (B, outputs, *spatial), or those of all scales, finest first (coarser ones are not
            cropped: they belong to the padded size).

        Raises
        ------
        ModelError
            If the input has other axes or channels than the model, no pixel, or another size than the patch
            where channel tokens need it.
        """
        size = self._checked_size(x)
        # The weights say in which dtype and layout a prepared network computes.
        x = pad_to_multiple(x.to(next(self.parameters()).dtype), self.total_stride)
        x = self.stem(x)
        skips: list[Tensor] = []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        skips.pop()
        logits: list[Tensor] = []
        for step in cast("Iterable[DecoderStep]", self.decoder):
            skip = skips.pop()
            x = step(x, skip if step.concatenates else None)
            if all_scales or not skips:
                level = step.head(x)
                logits.insert(0, level.to(torch.promote_types(level.dtype, torch.float32)))
        for axis, length in enumerate(size, start=2):
            logits[0] = logits[0].narrow(axis, 0, length)
        return logits if all_scales else logits[0]

    def _checked_size(self, x: Tensor) -> Size:
        spec = self.spec
        if x.ndim != 2 + spec.dimension or x.shape[1] != spec.input_channels or not x.numel():
            raise ModelError(
                f"The network input has shape {tuple(x.shape)}, "
                f"expected (batch, {spec.input_channels}, {spec.dimension} spatial sizes).",
            )
        size: Size = tuple(x.shape[2:])
        if self.fixed_size not in (None, size):
            raise ModelError(
                f"The network input has size {size}, but a network with channel tokens takes only its patch "
                f"size {self.fixed_size}.",
                "Cut the image into tiles of that size.",
            )
        return size


def pad_to_multiple(x: Tensor, multiple: Size) -> Tensor:
    """Return x (B, C, *spatial) padded at the far end with its edge values to multiples of ``multiple``."""
    missing = [-size % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    if not any(missing):
        return x
    return pad(x, [n for end in reversed(missing) for n in (0, end)], mode="replicate")


def _mixers(spec: ModelSpec, total_stride: Size) -> Iterator[ResidualBlock | ViLLayer | nn.Identity]:
    """Yield what follows the blocks of each encoder stage."""
    network = spec.network
    stages = len(network.features)
    scans = 0
    map_size = spec.patch_size
    for s, (width, kernel, stride) in enumerate(
        zip(network.features, network.kernels, network.strides, strict=True)
    ):
        map_size = tuple(n // step for n, step in zip(map_size, stride, strict=True))
        if _has_extra_block(spec, s):
            yield ResidualBlock(width, width, kernel)
        elif network.mixer == "vil" and _has_vil(spec, s, stages):
            swapped = network.channel_tokens and prod(map_size) <= width
            if swapped and any(n % m for n, m in zip(spec.patch_size, total_stride, strict=True)):
                raise ModelError(
                    f"patch_size is {spec.patch_size}, expected multiples of the total stride {total_stride} "
                    "for a network with channel tokens."
                )
            reverse = network.direction == "paired" and scans % 2 == 1
            yield ViLLayer(prod(map_size) if swapped else width, reverse=reverse, channel_tokens=swapped)
            scans += 1
        else:
            yield nn.Identity()


def _has_extra_block(spec: ModelSpec, stage: int) -> bool:
    """Whether Enc has one residual block after this stage, as released."""
    if spec.network.variant != "enc":
        return False
    return stage == 1 if spec.dimension == 2 else stage <= 2


def _has_vil(spec: ModelSpec, stage: int, stages: int) -> bool:
    """Whether a ViL layer follows this stage."""
    match spec.network.variant:
        case "bot":
            return stage == stages - 1
        case "dense":
            return True
        case "enc":
            return spec.dimension == 3 or (stage > 1 and stage % 2 != stages % 2)
