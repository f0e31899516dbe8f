"""Several networks of one shape, trained on other folds of the data, as one network."""

from __future__ import annotations

from typing import Literal, cast, overload

from torch import Tensor, nn

from xlstm_unet.nets.unet import Network
from xlstm_unet.spec import ModelSpec


class Ensemble(Network):
    """Networks whose logits are averaged.

    Parameters
    ----------
    spec
        Model with ``folds`` of at least 1: the number of networks in ``members``.

    Raises
    ------
    ModelError
        As `Network` does.
    """

    def __init__(self, spec: ModelSpec) -> None:
        nn.Module.__init__(self)
        self.spec = spec
        self.members = nn.ModuleList(Network(spec) for _ in range(spec.folds))
        self.total_stride = cast("Network", self.members[0]).total_stride

    @overload
    def forward(self, x: Tensor, *, all_scales: Literal[False] = False) -> Tensor: ...
    @overload
    def forward(self, x: Tensor, *, all_scales: Literal[True]) -> list[Tensor]: ...
    def forward(self, x: Tensor, *, all_scales: bool = False) -> Tensor | list[Tensor]:
        """Return the mean of the members' logits; see `Network.forward`."""
        first, *others = self.members
        total: list[Tensor] = first(x, all_scales=True) if all_scales else [first(x)]
        for member in others:
            found = member(x, all_scales=True) if all_scales else [member(x)]
            total = [one + other for one, other in zip(total, found, strict=True)]
        mean = [level / self.spec.folds for level in total]
        return mean if all_scales else mean[0]
