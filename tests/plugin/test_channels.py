"""Which channels are offered for which image and model."""

from __future__ import annotations

import numpy as np
import pytest

from napari_xlstm_unet.channels import ChannelChoice, channel_choices
from xlstm_unet.spec import ModelSpec


@pytest.mark.parametrize(
    ("count", "colour", "inputs", "gray", "titles"),
    [
        (None, False, 1, False, ["One channel"]),
        (None, False, 3, True, ["One channel"]),
        (None, False, 2, False, []),
        (2, False, 1, False, ["Channel 1", "Channel 2"]),
        (2, False, 2, False, ["All 2 channels"]),
        (3, False, 3, True, ["Channel 1", "Channel 2", "Channel 3", "All 3 channels"]),
        (3, True, 3, True, ["Colour", "Red", "Green", "Blue"]),
        (4, True, 3, True, ["Colour", "Red", "Green", "Blue"]),
        (3, True, 1, False, ["Brightness", "Red", "Green", "Blue"]),
        (3, True, 2, False, []),
        (5, False, 4, False, []),
    ],
)
def test_choices(
    spec: ModelSpec, count: int | None, colour: bool, inputs: int, gray: bool, titles: list[str]
) -> None:
    model = spec.model_copy(update={"input_channels": inputs, "accepts_gray": gray})
    assert [choice.title for choice in channel_choices(count, model, colour=colour)] == titles


def test_taking() -> None:
    array = np.arange(4 * 2 * 3, dtype=np.uint8).reshape(4, 2, 3)
    np.testing.assert_array_equal(ChannelChoice("", (2, 0)).take(array), array[[2, 0]])
    np.testing.assert_allclose(ChannelChoice("", (0, 1, 2), mean=True).take(array), array[:3].mean(0))
