from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from xlstm_unet.nets import Ensemble, build_network, prepare
from xlstm_unet.spec import ModelSpec


@pytest.mark.parametrize("all_scales", [False, True])
def test_logits_are_the_mean_of_the_members(make_spec: Callable[..., ModelSpec], all_scales: bool) -> None:
    spec = make_spec("enc", (32, 32)).model_copy(update={"folds": 3})
    ensemble = build_network(spec, generator=torch.Generator().manual_seed(0)).eval()
    assert isinstance(ensemble, Ensemble)
    x = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    found = ensemble(x, all_scales=all_scales)
    each = [member(x, all_scales=all_scales) for member in ensemble.members]
    assert not torch.equal(each[0][0], each[1][0]), "the members must differ"
    for level, parts in zip(found, zip(*each, strict=True), strict=True):
        torch.testing.assert_close(level, torch.stack(parts).mean(0))


def test_an_ensemble_is_a_network(make_spec: Callable[..., ModelSpec]) -> None:
    spec = make_spec("enc", (32, 32)).model_copy(update={"folds": 2})
    ensemble = build_network(spec, generator=torch.Generator().manual_seed(0)).eval()
    alone = build_network(spec.model_copy(update={"folds": 1}))
    assert type(ensemble) is not type(alone)
    assert (ensemble.total_stride, ensemble.fixed_size) == (alone.total_stride, alone.fixed_size)
    expected = {f"members.{n}.{name}" for n in range(2) for name in alone.state_dict()}
    assert set(ensemble.state_dict()) == expected
    x = torch.randn(1, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    copy = prepare(ensemble, torch.device("cpu"), precision="float32")
    torch.testing.assert_close(copy(x), ensemble(x), rtol=1e-4, atol=1e-4)
