"""Several processes that train one network together: each its own crops, gradients averaged."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from xlstm_unet.errors import TrainingError

if TYPE_CHECKING:
    from accelerate import Accelerator

_SEEDS_APART = 1_000_003


def is_first_process() -> bool:
    """Whether this process is the one that writes files and reports; true where there is only one."""
    return int(os.environ.get("RANK", "0")) == 0


class Team:
    """A process alone: what it says is agreed."""

    rank, size = 0, 1

    def seed(self, seed: int) -> int:
        """Return a seed of its own for each process; the first one's is the given one."""
        return seed + _SEEDS_APART * self.rank

    def wrapped(self, network: nn.Module, *, all_used: bool) -> nn.Module:
        """Return what computes outputs of a network, so that gradients are averaged in its backward pass.

        Parameters
        ----------
        network
            On its device, in training mode.
        all_used
            Whether every parameter has part in the loss.
        """
        return network

    def agreed(self, value: float) -> float:
        """Return what the first process says."""
        return value

    def mean(self, value: Tensor) -> Tensor:
        """Average a number over all processes."""
        return value

    def gathered(self, state: Tensor) -> list[Tensor]:
        """Return the states of all processes, in order."""
        return [state]

    def wait(self) -> None:
        """Go on when all processes have come here."""


class AcceleratedTeam(Team):
    """Processes started by ``accelerate launch`` (or ``torchrun``).

    Parameters
    ----------
    device
        "auto", "cpu" or "cuda".

    Raises
    ------
    TrainingError
        If accelerate is not installed.
    """

    def __init__(self, device: str) -> None:
        if find_spec("accelerate") is None:
            raise TrainingError(
                "Training in several processes needs accelerate, which is not installed.",
                'Install it: pip install "xlstm-unet[train]"',
            )
        from accelerate import Accelerator, DistributedDataParallelKwargs

        self._options = DistributedDataParallelKwargs()
        self._accelerator: Accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[self._options])
        self.rank, self.size = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    def wrapped(self, network: nn.Module, *, all_used: bool) -> nn.Module:
        """As `Team.wrapped`."""
        self._options.find_unused_parameters = not all_used
        wrapped: nn.Module = self._accelerator.prepare_model(network)
        return wrapped

    def agreed(self, value: float) -> float:
        """As `Team.agreed`."""
        from accelerate.utils import broadcast_object_list

        values: list[Any] = [value]
        broadcast_object_list(values)
        return float(values[0])

    def mean(self, value: Tensor) -> Tensor:
        """As `Team.mean`."""
        reduced: Tensor = self._accelerator.reduce(value.clone(), reduction="mean")
        return reduced

    def gathered(self, state: Tensor) -> list[Tensor]:
        """As `Team.gathered`."""
        together: Tensor = self._accelerator.gather(state.to(self.device)[None])
        # Copies: a generator cannot be set from a part of a tensor.
        return [state.clone() for state in together.cpu()]

    def wait(self) -> None:
        """As `Team.wait`."""
        self._accelerator.wait_for_everyone()


def make_team(device: str) -> Team:
    """Return the processes that train with this one, as the environment says."""
    return AcceleratedTeam(device) if int(os.environ.get("WORLD_SIZE", "1")) > 1 else Team()


def team_device(team: Team, device: torch.device) -> torch.device:
    """Return the device of this process: in a team each has its own."""
    return team.device if isinstance(team, AcceleratedTeam) else device
