"""Losses over supervised pixels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xlstm_unet.images import read_labels
from xlstm_unet.learn.config import Losses
from xlstm_unet.learn.losses import Targets, instance_classes, segmentation_loss, soft_dice_loss
from xlstm_unet.learn.targets import instance_targets


def test_classes_on_the_device_equal_those_of_the_targets(data: Path) -> None:
    names = ("fluo_small", "hist_pink_he")
    labels = [read_labels(data / "nuclei" / "labels" / f"{name}.png")[:96, :80] for name in names]
    batch = instance_classes(torch.stack([torch.from_numpy(one).long() for one in labels]))
    for row, one in zip(batch, labels, strict=True):
        assert torch.equal(row, torch.from_numpy(instance_targets(one)[0]).long())


def _example() -> tuple[torch.Tensor, Targets]:
    generator = torch.Generator().manual_seed(0)
    output = torch.randn(2, 4, 12, 10, generator=generator, requires_grad=True)
    classes = torch.randint(0, 3, (2, 12, 10), generator=generator)
    return output, Targets(classes, torch.rand(2, 12, 10, generator=generator))


def test_untouched_pixels_carry_no_loss_and_no_gradient() -> None:
    output, targets = _example()
    known = torch.zeros(2, 12, 10, dtype=torch.bool)
    known[:, 3:7, 2:9] = True
    loss = segmentation_loss([output], Targets(targets.classes, targets.distance, known), Losses())
    loss.backward()
    assert output.grad is not None
    assert (output.grad.abs().sum(1) > 0)[known].all()
    assert not output.grad.abs().sum(1)[~known].any()
    other = torch.where(known, targets.classes, 2 - targets.classes)
    assert segmentation_loss([output], Targets(other, targets.distance, known), Losses()) == loss


def test_the_distance_can_be_unknown_where_the_class_is_known() -> None:
    output, targets = _example()
    nowhere = torch.zeros(2, 12, 10, dtype=torch.bool)
    partial = Targets(targets.classes, targets.distance, distance_supervised=nowhere)
    segmentation_loss([output], partial, Losses()).backward()
    assert output.grad is not None
    assert not output.grad[:, 3].any()
    assert output.grad[:, :3].all()


def test_perfect_output_has_almost_no_loss() -> None:
    _, targets = _example()
    assert targets.distance is not None
    logits = 50.0 * torch.nn.functional.one_hot(targets.classes, 3).movedim(-1, 1)
    output = torch.cat([logits, targets.distance[:, None]], dim=1)
    assert segmentation_loss([output], targets, Losses()) < 1e-3


def test_dice_of_halves() -> None:
    classes = torch.tensor([[[1, 1, 0, 0]]])
    logits = torch.tensor([[-50.0, 50.0, -50.0, 50.0]]).view(1, 1, 1, 4)
    logits = torch.cat([-logits, logits], dim=1)
    # 1 pixel of 2 predicted and 2 true ones overlaps: (2 + 1) / (4 + 1) with the smoothing of one pixel.
    assert soft_dice_loss(logits, classes, torch.ones(1, 1, 4)).item() == pytest.approx(1 - 3 / 5)


def test_no_known_pixel_at_all_is_no_loss() -> None:
    output, targets = _example()
    nothing = torch.zeros(2, 12, 10, dtype=torch.bool)
    loss = segmentation_loss([output], Targets(targets.classes, targets.distance, nothing), Losses())
    assert loss == 0


def test_coarser_scales_are_compared_with_every_second_pixel() -> None:
    output, targets = _example()
    assert targets.distance is not None
    coarse = Targets(targets.classes[:, ::2, ::2], targets.distance[:, ::2, ::2])
    small = output.detach()[:, :, ::2, ::2]
    both = segmentation_loss([output, small], targets, Losses(scales=(1.0, 0.5)))
    fine_loss = segmentation_loss([output], targets, Losses())
    coarse_loss = segmentation_loss([small], coarse, Losses())
    assert both.item() == pytest.approx((fine_loss + 0.5 * coarse_loss).item() / 1.5, rel=1e-5)
