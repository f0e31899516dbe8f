"""One step after another: crops, loss, AdamW, and averaged weights."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from xlstm_unet.learn.augment import draw_warps
from xlstm_unet.learn.background import fold_into_windows, normalise_alone
from xlstm_unet.learn.bank import Bank, crop_batch, send
from xlstm_unet.learn.config import TrainConfig
from xlstm_unet.learn.intensity import change_intensity, empty_patches, unit_range
from xlstm_unet.learn.losses import Targets, instance_classes, region_table, segmentation_loss
from xlstm_unet.learn.team import Team
from xlstm_unet.nets import Network
from xlstm_unet.nets.runtime import compute_dtype

_AVERAGE_WARMUP = 10


class Average:
    """Exponential moving average of a network's parameters; follows faster at first.

    Parameters
    ----------
    network
        Network that is averaged.
    decay
        Largest share of the old average that a step keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.names = [name for name, _ in network.named_parameters()]
        self.values = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the parameters after step ``step`` (from 1)."""
        decay = min(self.decay, step / (step + _AVERAGE_WARMUP))
        torch._foreach_lerp_(self.values, [p.detach() for p in network.parameters()], 1 - decay)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged parameters by name."""
        return dict(zip(self.names, self.values, strict=True))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over averaged parameters."""
        for name, value in zip(self.names, self.values, strict=True):
            value.copy_(state[name])


class BatchSource:
    """Draws augmented batches from a bank; all random numbers come from one generator on the CPU.

    Parameters
    ----------
    bank
        Images.
    modalities
        Modality of each image, for balanced sampling.
    config
        Training configuration.
    seed
        Instead of the configuration's.
    """

    def __init__(
        self, bank: Bank, modalities: list[str], config: TrainConfig, *, seed: int | None = None
    ) -> None:
        self.bank = bank
        self.config = config
        self.generator = torch.Generator().manual_seed(config.seed if seed is None else seed)
        self._noise = torch.Generator(bank.device)
        counts = {name: modalities.count(name) for name in set(modalities)}
        weights = [counts[name] ** -config.sampling.balance for name in modalities]
        self._weights = torch.tensor(weights, dtype=torch.float64)
        self._crops = torch.tensor([crop.weight for crop in config.crops], dtype=torch.float64)
        low, high = unit_range(config.model)
        self._low, self._high = send(low, bank.device), send(high - low, bank.device)

    def draw(self) -> tuple[Tensor, Targets]:
        """Return a batch: image (B, C, *size) float32 and its targets."""
        config, generator = self.config, self.generator
        crop = config.crops[int(torch.multinomial(self._crops, 1, generator=generator))]
        batch = crop_batch(config.sampling.batch, config.model.patch_size, crop.size)
        chosen = torch.multinomial(self._weights, batch, replacement=True, generator=generator)
        self._noise.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        warps = draw_warps(self.bank, chosen, crop.size, config, generator)
        coordinates = warps.coordinates(crop.size, self.bank.device)
        windows = self._windows(chosen)
        if windows.any():
            coordinates = fold_into_windows(coordinates, send(windows, self.bank.device))
        crops = self.bank.take(send(chosen, self.bank.device), coordinates)
        image, labels, distance = crops.image, crops.labels, crops.distance
        image = self._normalised_alone(image, windows)
        empty = torch.rand(batch, generator=generator) < config.sampling.empty
        if empty.any():
            filled = send(~empty, image.device).view(-1, *([1] * len(crop.size)))
            empty_image = empty_patches(image, self._noise) * self._high + self._low
            image = torch.where(filled[:, None], image, empty_image)
            labels = labels * filled
            distance = None if distance is None else distance * filled
        image = (image - self._low) / self._high
        image = change_intensity(image, self.bank.gray[chosen], config.intensity, generator, self._noise)
        image = image * self._high + self._low
        supervised = labels >= 0 if self.bank.partial else None
        labels = labels.clamp(min=0)
        classes = labels if distance is None else instance_classes(labels)
        return image, Targets(classes, distance, supervised)

    def _windows(self, chosen: Tensor) -> Tensor:
        """Background windows of the crops that are to show one; zeros for the others."""
        share = self.config.sampling.background
        if not share:
            return torch.zeros_like(self.bank.windows[chosen])
        picked = torch.rand(len(chosen), generator=self.generator) < share
        return self.bank.windows[chosen] * picked[:, None]

    def _normalised_alone(self, image: Tensor, windows: Tensor) -> Tensor:
        """Normalise crops of background, and a share of the others, by themselves."""
        share, schemes = self.config.sampling.alone, self.config.model.normalisation
        alone = windows[:, -1] > 0
        if share:
            alone = alone | (torch.rand(len(alone), generator=self.generator) < share)
        if schemes[0].scheme != "percentile" or len(schemes) > 1:
            return image
        return normalise_alone(image, alone, schemes[0].low, schemes[0].high)


@cache
def training_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype that a network trains fastest in under autocast.

    As `compute_dtype`, and bfloat16 also on CPUs that multiply it without AMX (AVX-512 BF16): they gain
    nothing in inference, where the layout is another, but a third to a half of a training step.
    """
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    if device.type == "cpu" and capabilities.get("avx512_bf16"):
        return torch.bfloat16
    return compute_dtype(device)


class Optimisation:
    """Network, optimiser and averaged weights of a training.

    Parameters
    ----------
    network
        Network in training mode, contiguous layout, on its device.
    config
        Training configuration.
    team
        Processes that train it together.
    """

    def __init__(self, network: Network, config: TrainConfig, team: Team | None = None) -> None:
        self.network = network
        self.config = config
        self._all_scales = len(config.losses.scales) > 1
        heads = len(config.model.network.decoder_blocks)
        all_used = len(config.losses.scales) == heads
        self._computing = (team or Team()).wrapped(network, all_used=all_used)
        self.device = next(network.parameters()).device
        self._dtype = training_dtype(self.device)
        table = region_table(config.model)
        self._regions = None if table is None else send(table, self.device)
        settings = config.optimiser
        decayed = [p for p in network.parameters() if p.ndim > 1]
        others = [p for p in network.parameters() if p.ndim <= 1]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=settings.learning_rate,
            fused=self.device.type == "cuda",
        )
        self.average = Average(network, settings.average)

    def rate(self, step: int, share: float) -> float:
        """Learning rate of a step (from 0) at a share (0 to 1) of the training: warm-up, then cosine."""
        settings = self.config.optimiser
        warmup = min(1.0, (step + 1) / max(1, settings.warmup))
        return settings.learning_rate * warmup * (1 + math.cos(math.pi * min(1.0, share))) / 2

    def step(self, image: Tensor, targets: Targets, step: int, share: float) -> Tensor:
        """Learn from one batch and return its loss, still on the device (no wait)."""
        rate = self.rate(step, share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, self._dtype, enabled=self._dtype != torch.float32):
            outputs = self._outputs(image)
        loss = segmentation_loss(outputs, targets, self.config.losses, self._regions)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimiser.clip)
        self.optimiser.step()
        self.average.update(self.network, step + 1)
        return loss.detach()

    def _outputs(self, image: Tensor) -> list[Tensor]:
        outputs = self._computing(image, all_scales=self._all_scales)
        return outputs if self._all_scales else [outputs]

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next step depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
