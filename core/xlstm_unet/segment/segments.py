"""What segmented labels are called and which colour they have, for files and fronts that show it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images.overlay import palette
from xlstm_unet.spec import Label, ModelSpec


def name_segments(spec: ModelSpec, labels: NDArray[np.int32]) -> tuple[Label, ...]:
    """Return name, colour and code of every label.

    Parameters
    ----------
    spec
        The model.
    labels
        What it found, any shape.

    Returns
    -------
    segments
        Classes: the model's labels, all of them. Instances: one for each object that there is, numbered, in
        colours that differ from one to the next.
    """
    if spec.task == "classes":
        return spec.labels
    kind, colours = spec.labels[0], palette()
    numbers = np.unique(labels)
    return tuple(
        kind.model_copy(
            update={
                "value": int(number),
                "name": f"{kind.name[:90]} {number}",
                "color": tuple(int(part) for part in colours[number % len(colours)]),
            }
        )
        for number in numbers[numbers > 0]
    )
