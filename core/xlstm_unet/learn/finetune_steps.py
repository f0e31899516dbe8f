"""One step of fine-tuning after another: partial losses, AdamW, averaged weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_unet.learn.config import Losses
from xlstm_unet.learn.finetune_batches import Batch, Crops
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.learn.losses import segmentation_loss
from xlstm_unet.learn.optimise import Average, training_dtype
from xlstm_unet.nets import Network, count_parameters
from xlstm_unet.nets.norm import InstanceNorm

ALL_PARAMETERS = 4_000_000
"""Networks of up to so many parameters learn with all of them."""

_BETAS = (0.9, 0.99)
_EPS = 1e-8
_DECAY = 0.01
_CLIP = 1.0
_AVERAGE = 0.97
FAR, NEAR = (0.15, 0.2), (0.25, 0.6)
"""The root's loss at home as a share of that on the corrections, and its share of the weights then."""
OF_CLASSES = 0.4
"""The root's share of the weights where classes are painted: more than errors alone, whose loss says less."""


class AdamW:
    """AdamW (Loshchilov and Hutter 2019) over tensors in one pass each.

    ``torch.optim`` imports the whole compiler when its first optimiser is made, seconds that a user waits.
    """

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.steps = 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters against their gradients, which are clipped to norm 1 and then dropped."""
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self.parameters]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (_CLIP / (norm + 1e-6)).clamp(max=1.0))
        self.steps += 1
        torch._foreach_lerp_(self.first, gradients, 1 - _BETAS[0])
        torch._foreach_mul_(self.second, _BETAS[1])
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - _BETAS[1])
        scale = torch._foreach_sqrt(self.second)
        torch._foreach_div_(scale, (1 - _BETAS[1] ** self.steps) ** 0.5)
        torch._foreach_add_(scale, _EPS)
        parameters: list[Tensor] = [*self.parameters]
        if kernels := [p for p in parameters if p.ndim > 1]:
            torch._foreach_mul_(kernels, 1 - rate * _DECAY)
        torch._foreach_addcdiv_(parameters, self.first, scale, -rate / (1 - _BETAS[0] ** self.steps))
        for parameter in self.parameters:
            parameter.grad = None


class Learner:
    """A network that learns, with its averaged weights.

    Parameters
    ----------
    network
        On its device, in training mode; it is changed.
    options
        How.
    teacher
        The root, for distillation; None without.
    interrupt
        Asked many times within a step; it ends the step by raising.
    """

    def __init__(
        self,
        network: Network,
        options: FineTuneOptions,
        teacher: Network | None,
        interrupt: Callable[[], None],
    ) -> None:
        self.network = network
        self.options = options
        self.teacher = teacher
        self.interrupt = interrupt
        self.device = next(network.parameters()).device
        self._dtype = training_dtype(self.device)
        chosen = trained_parameters(network, options.trained)
        for parameter in network.parameters():
            parameter.requires_grad_(parameter in chosen)
        self.optimiser = AdamW([p for p in network.parameters() if p.requires_grad])
        self.average = Average(network, _AVERAGE)
        self.losses = Losses()

    def step(self, batch: Batch) -> float:
        """Learn from one batch and return its loss.

        Corrections and replay are averaged apart: a replayed crop knows every pixel, a correction few.
        """
        share = self.options.replay_share if batch.replay is not None else 0.0
        with _interruptible(self.network, self.interrupt):
            loss = self._learn(batch.corrections, 1 - share, self.options.distillation, untouched=True)
            if batch.replay is not None:
                loss += self._learn(batch.replay, share, self.options.anchor, untouched=False)
        warm = min(1.0, (self.optimiser.steps + 1) / max(1, self.options.warmup))
        self.optimiser.step(self.options.learning_rate * warm)
        self.average.update(self.network, self.optimiser.steps)
        return float(loss)

    @torch.no_grad()
    def look(self, batch: Batch) -> tuple[float, float]:
        """Return the losses of the corrections and of the replay of a batch, without learning from it."""
        assert batch.replay is not None
        found = []
        with _interruptible(self.network, self.interrupt), self._autocast():
            for crops in (batch.corrections, batch.replay):
                output = self.network.forward(crops.image)
                found.append(float(segmentation_loss([output], crops.targets, self.losses)))
        return found[0], found[1]

    def _learn(self, crops: Crops, share: float, near_root: float, *, untouched: bool) -> Tensor:
        """Add a share of the gradient of some crops; return the share of their loss."""
        with self._autocast():
            output = self.network.forward(crops.image)
        loss = segmentation_loss([output], crops.targets, self.losses)
        if near_root and self.teacher is not None:
            loss = loss + near_root * self._distance_to_root(output, crops, untouched=untouched)
        loss = share * loss
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _autocast(self) -> Any:
        if self._dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self._dtype)

    def _distance_to_root(self, output: Tensor, crops: Crops, *, untouched: bool) -> Tensor:
        """How far the classes are from the root's (Kullback-Leibler), on average over voxels.

        ``untouched``: of those that are not known; else of all.
        """
        assert self.teacher is not None
        with torch.no_grad(), self._autocast():
            root = self.teacher.forward(crops.image)
        if crops.targets.distance is not None:
            output, root = output[:, :-1], root[:, :-1]
        taught, learnt = root.float().log_softmax(1), output.float().log_softmax(1)
        divergence = nn.functional.kl_div(learnt, taught, reduction="none", log_target=True).sum(1)
        known = crops.targets.supervised
        if not untouched or known is None:
            return divergence.mean()
        free = known == 0
        return (divergence * free).sum() / free.sum().clamp(min=1)

    def state(self) -> dict[str, Any]:
        """Return a copy of everything that the next step depends on."""
        return {
            "network": {n: t.detach().clone() for n, t in self.network.state_dict().items()},
            "average": [t.clone() for t in self.average.values],
            "steps": self.optimiser.steps,
            "first": [t.clone() for t in self.optimiser.first],
            "second": [t.clone() for t in self.optimiser.second],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        self.network.load_state_dict(state["network"])
        self.optimiser.steps = state["steps"]
        for name, target in (
            ("average", self.average.values),
            ("first", self.optimiser.first),
            ("second", self.optimiser.second),
        ):
            torch._foreach_copy_(target, state[name])


def mixed(root: Mapping[str, Tensor], tuned: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Return weights between a root's and those fine-tuned from it, which forget less than the latter.

    Interpolation as in WiSE-FT (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models",
    arXiv:2109.01903).

    Parameters
    ----------
    root, tuned
        Weights by name, on the CPU.
    share
        The root's share, from 0 (what was tuned, bit for bit) to 1 (the root).
    """
    return {name: value.lerp(tuned[name], 1 - share) for name, value in root.items()}


def root_share(losses: Sequence[tuple[float, float]]) -> float:
    """Return the root's share of the weights in the result, by what the root makes of some batches.

    What is new to the root needs most of what was learnt. What it nearly knows needs less, and more would
    cost what it knew. How near corrections are says the root's loss on them beside that on the replay pack.

    Parameters
    ----------
    losses
        Of corrections and of replay, for each batch; see `Learner.look`.
    """
    corrections, replay = sum(first for first, _ in losses), sum(second for _, second in losses)
    if corrections <= 0:
        return FAR[1]
    (far, least), (near, most) = FAR, NEAR
    place = (replay / corrections - far) / (near - far)
    return round(least + (most - least) * min(1.0, max(0.0, place)), 3)


def trained_parameters(network: Network, which: str) -> set[nn.Parameter]:
    """Return the parameters that learn."""
    if which == "all" or (which == "auto" and count_parameters(network) <= ALL_PARAMETERS):
        return set(network.parameters())
    norms = {p for m in network.modules() if isinstance(m, InstanceNorm) for p in m.parameters()}
    return norms if which == "norms" else norms | set(network.decoder.parameters())


@contextmanager
def _interruptible(network: Network, interrupt: Callable[[], None]) -> Iterator[None]:
    """Ask before every layer, forward and backward: one step can take longer than a user waits."""

    def ask(*_: Any) -> None:
        interrupt()

    def ask_on_the_way_back(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(ask)  # type: ignore[no-untyped-call]

    handles = []
    for module in network.modules():
        if not any(module.children()):
            handles.append(module.register_forward_pre_hook(ask))
            handles.append(module.register_forward_hook(ask_on_the_way_back))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
