"""Crops that show nothing but real background, and crops normalised by themselves as a small image is."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from xlstm_unet.images.prepare import PERCENTILE_RANGE

_MARGIN = 3
"""Pixels kept away from every object: its halo is no background."""
_LEAST_HALF = 8
_SAMPLES = 65536


def background_window(labels: NDArray[np.integer]) -> NDArray[np.float32]:
    """Return middle and half side of the largest square (cube) of an image without any object.

    Parameters
    ----------
    labels
        2D or 3D, 0 is background.

    Returns
    -------
    numpy.ndarray
        (axes + 1,) float32: the middle, then half the side in pixels; 0 where there is no room.
    """
    free = np.pad(labels == 0, 1)
    depth = ndimage.distance_transform_cdt(free, metric="chessboard")
    depth = depth[(slice(1, -1),) * labels.ndim]
    middle = np.unravel_index(int(depth.argmax()), labels.shape)
    half = float(depth[middle]) - 1 - _MARGIN
    return np.array([*middle, half if half >= _LEAST_HALF else 0.0], dtype=np.float32)


def fold_into_windows(coordinates: Tensor, windows: Tensor) -> Tensor:
    """Mirror coordinates at the borders of a window, so that a crop of any size shows the window alone.

    Parameters
    ----------
    coordinates
        (B, *size, axes), float32.
    windows
        (B, axes + 1), middle and half side; crops with half side 0 stay as they are.
    """
    batch, axes = len(windows), windows.shape[1] - 1
    middle = windows[:, :axes].view(batch, *([1] * axes), axes)
    half = windows[:, axes].view(batch, *([1] * axes), 1)
    side = (2 * half).clamp(min=1)
    folded = torch.remainder(coordinates - middle + half, 2 * side)
    folded = middle - half + torch.minimum(folded, 2 * side - folded)
    return torch.where(half > 0, folded, coordinates)


def normalise_alone(image: Tensor, chosen: Tensor, low: float, high: float) -> Tensor:
    """Stretch chosen crops between percentiles of their own, as an image of that content would be.

    Parameters
    ----------
    image
        (B, C, *spatial), float32.
    chosen
        Which crops, (B,), bool, on the CPU.
    low, high
        Percentiles that become 0 and 1.
    """
    if not chosen.any():
        return image
    flat = image.flatten(1)
    sample = flat[:, :: max(1, flat.shape[1] // _SAMPLES)]
    levels = torch.tensor([low / 100, high / 100], device=image.device)
    bottom, top = torch.quantile(sample, levels, dim=1)
    shape = (-1, *([1] * (image.ndim - 1)))
    extent = (top - bottom).clamp(min=1e-6)
    alone = ((image - bottom.view(shape)) / extent.view(shape)).clamp(*PERCENTILE_RANGE)
    return torch.where(chosen.to(image.device).view(shape), alone, image)
