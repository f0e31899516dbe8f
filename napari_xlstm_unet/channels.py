"""Which channels of an image a model is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from xlstm_unet.spec import ModelSpec

_COLOURS = ("Red", "Green", "Blue")


@dataclass(frozen=True)
class ChannelChoice:
    """One entry of the channel list.

    Parameters
    ----------
    title
        What the dock shows.
    indices
        Channels of the image, in the order of the model's; empty without a channel axis.
    mean
        Whether they are averaged into one (brightness of a colour image).
    """

    title: str
    indices: tuple[int, ...] = ()
    mean: bool = False

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reduce an array with the channels first to those chosen."""
        chosen = array[list(self.indices)]
        return chosen.mean(axis=0, dtype=np.float32) if self.mean else chosen


def channel_choices(count: int | None, spec: ModelSpec, *, colour: bool = False) -> tuple[ChannelChoice, ...]:
    """Return what a user may choose, the most likely first; nothing when the image cannot fit the model.

    Parameters
    ----------
    count
        Length of the channel axis; None without one.
    spec
        The model.
    colour
        Whether the channels are red, green, blue (and alpha).
    """
    wanted = spec.input_channels
    gray = wanted == 1 or spec.accepts_gray
    if count is None:
        return (ChannelChoice("One channel"),) if gray else ()
    colour = colour and count in (3, 4)
    names = _COLOURS if colour else tuple(f"Channel {n + 1}" for n in range(count))
    singles = [ChannelChoice(name, (n,)) for n, name in enumerate(names)] if gray else []
    together = []
    if wanted > 1 and len(names) == wanted:
        title = "Colour" if colour else f"All {count} channels"
        if spec.channel_names and not colour:
            title = "As " + ", ".join(spec.channel_names)
        together.append(ChannelChoice(title, tuple(range(wanted))))
    elif colour and gray:
        together.append(ChannelChoice("Brightness", (0, 1, 2), mean=True))
    return tuple(together + singles if colour or not gray else singles + together)
