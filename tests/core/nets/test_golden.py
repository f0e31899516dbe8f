"""Outputs of the released code: the same within 1e-4, for every case, in every way the network is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from xlstm_unet.zoo.nnunet import import_nnunet


def check(folder: Path, *, gradients: bool) -> None:
    network = import_nnunet(next(folder.glob("*__*"))).network
    x = torch.from_numpy(np.load(folder / "input.npy"))
    expected = [np.load(path) for path in sorted(folder.glob("logits_*.npy"))]
    with torch.set_grad_enabled(gradients):
        logits = network(x, all_scales=True)
        finest = network(x)
    assert len(logits) == len(expected)
    for found, wanted in zip(logits, expected, strict=True):
        np.testing.assert_allclose(found.detach().numpy(), wanted, atol=1e-4, rtol=0)
    assert torch.equal(finest, logits[0])


@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "gradients"])
@pytest.mark.parametrize("case", ["enc_2d", "bot_3d"])
def test_copied_cases(copied_golden: Path, case: str, gradients: bool) -> None:
    check(copied_golden / case, gradients=gradients)


@pytest.mark.parametrize("case", ["bot_2d", "enc_2d", "bot_3d", "enc_3d"])
def test_all_cases(shared: Path, case: str) -> None:
    check(shared / "golden" / case, gradients=False)
