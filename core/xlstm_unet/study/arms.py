"""What is compared: variants of one training configuration, each trained from several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xlstm_unet.errors import ConfigError
from xlstm_unet.learn import TrainConfig
from xlstm_unet.nets import Network
from xlstm_unet.study.baselines import PlainUNet, plain_unet_spec

_NETWORKS: dict[str, dict[str, Any]] = {
    "none": {"variant": "bot", "mixer": "none"},
    "bot": {"variant": "bot", "mixer": "vil"},
    "enc": {"variant": "enc", "mixer": "vil"},
    "dense": {"variant": "dense", "mixer": "vil", "direction": "paired"},
}
ARMS = (*_NETWORKS, "plain")
"""Names: the network without ViL layers, its three variants, and a plain U-Net of equal cost."""

_SEED_HEIGHTS = (0.1,)
_AVERAGED_SHARE = 0.05


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Parameters
    ----------
    name
        Short name.
    config
        Training configuration.
    network_type
        Class of its network.
    """

    name: str
    config: TrainConfig
    network_type: type[Network] = Network


def make_arm(name: str, base: TrainConfig) -> Arm:
    """Return an arm by its name, or of the training configuration (TOML) of that path.

    Parameters
    ----------
    name
        One of `ARMS`, or a path that ends in ``.toml``.
    base
        Configuration that the named arms vary.

    Raises
    ------
    ConfigError
        If there is no such arm, or the file cannot be used.
    """
    if name.endswith(".toml"):
        return Arm(Path(name).stem, TrainConfig.read(Path(name)))
    if name == "plain":
        return Arm(name, base.model_copy(update={"model": plain_unet_spec(base.model)}), PlainUNet)
    if name not in _NETWORKS:
        raise ConfigError(
            f"There is no arm {name!r}.", f"Choose from {', '.join(ARMS)}, or give a training configuration."
        )
    network = base.model.network.model_copy(update=_NETWORKS[name])
    return Arm(name, base.model_copy(update={"model": base.model.model_copy(update={"network": network})}))


def run_config(config: TrainConfig, *, steps: int, seed: int) -> TrainConfig:
    """Return a configuration for a run of a fixed length: scored once at its end, with little tuning.

    Warm-up and averaging are shortened with the run; of the decoder's settings only the height of seeds is
    chosen, between two values.
    """
    optimiser = config.optimiser.model_copy(
        update={
            "steps": steps,
            "warmup": min(config.optimiser.warmup, steps // 10),
            "average": min(config.optimiser.average, max(0.0, 1 - 1 / (_AVERAGED_SHARE * steps))),
        }
    )
    validation = config.validation.model_copy(
        update={"interval": steps, "seed_heights": _SEED_HEIGHTS, "thresholds": (), "min_sizes": ()}
    )
    return config.model_copy(update={"optimiser": optimiser, "validation": validation, "seed": seed})
