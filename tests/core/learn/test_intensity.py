"""Changes of pixel values."""

from __future__ import annotations

import pytest
import torch

from xlstm_unet.learn.config import Intensity
from xlstm_unet.learn.intensity import change_intensity, empty_patches

NOTHING = {name: 0.0 for name in Intensity.model_fields if name != "strength"}


def _batch(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(5))


def _changed(
    image: torch.Tensor, changes: dict[str, float], *, seed: int = 0, is_gray: bool = False
) -> torch.Tensor:
    generators = (torch.Generator().manual_seed(seed) for _ in range(2))
    grays = torch.full((len(image),), is_gray)
    return change_intensity(image, grays, Intensity(**(NOTHING | changes)), *generators)


@pytest.mark.parametrize("shape", [(4, 3, 20, 24), (2, 1, 9, 10, 11), (3, 2, 16, 16)])
def test_without_any_change_the_pixels_stay(shape: tuple[int, ...]) -> None:
    image = _batch(*shape)
    torch.testing.assert_close(_changed(image, {}), image, atol=2e-4, rtol=0)


@pytest.mark.parametrize("change", sorted(NOTHING))
@pytest.mark.parametrize("shape", [(6, 3, 20, 24), (6, 3, 9, 10, 11)], ids=["2d", "3d"])
def test_every_change_does_something_and_stays_finite(change: str, shape: tuple[int, ...]) -> None:
    image = _batch(*shape)
    if change == "tint":
        image = image[:, :1].repeat(1, 3, *([1] * (len(shape) - 2)))
    changed = _changed(image, {change: 1.0}, is_gray=change == "tint")
    assert torch.isfinite(changed).all()
    assert ((changed - image).abs().flatten(1).amax(1) > 1e-3).sum() >= 5


def test_inversion_is_exact() -> None:
    image = _batch(2, 3, 8, 8)
    torch.testing.assert_close(_changed(image, {"invert": 1.0}), 1 - image, atol=2e-4, rtol=0)


def test_gray_makes_all_channels_equal_and_colour_keeps_gray_gray() -> None:
    changed = _changed(_batch(3, 3, 8, 8), {"gray": 1.0})
    torch.testing.assert_close(changed[:, 0], changed[:, 2])
    image = _batch(3, 1, 8, 8).repeat(1, 3, 1, 1)
    changed = _changed(image, {"colour": 1.0}, seed=1, is_gray=True)
    torch.testing.assert_close(changed[:, 0], changed[:, 2], atol=1e-5, rtol=1e-5)


def test_blur_keeps_the_mean_of_a_point() -> None:
    image = torch.zeros(8, 1, 31, 31)
    image[:, :, 15, 15] = 1
    changed = _changed(image, {"blur": 1.0})
    torch.testing.assert_close(changed.sum(dim=(1, 2, 3)), torch.ones(8), atol=0.02, rtol=0)
    assert changed[:, 0, 15, 15].min() < 0.5


def test_the_same_generators_give_the_same_pixels() -> None:
    image = _batch(4, 3, 16, 16)
    everything = dict.fromkeys(NOTHING, 0.5)
    assert torch.equal(_changed(image, everything, seed=3), _changed(image, everything, seed=3))
    assert not torch.equal(_changed(image, everything, seed=3), _changed(image, everything, seed=4))


def test_empty_patches_differ_and_are_finite() -> None:
    empty = empty_patches(torch.zeros(3, 3, 16, 24), torch.Generator().manual_seed(0))
    assert empty.shape == (3, 3, 16, 24)
    assert torch.isfinite(empty).all()
    assert not torch.equal(empty[0], empty[1])
