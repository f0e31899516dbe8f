"""What a user changed in a prediction, and what was found right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.images import Image


@dataclass(frozen=True, eq=False)
class Corrections:
    """A prediction, what a user made of it, and the regions that the user marked right.

    Parameters
    ----------
    image
        The image.
    prediction
        Labels as the model gave them, integers from 0, on the image's grid without C.
    labels
        Labels as they are now; where they differ from ``prediction`` they are corrected.
    accepted
        Boolean, the same shape: regions where ``labels`` are right. None: nowhere.
    diameter
        Object diameter in pixels of the image that it was segmented with; None: at the image's own scale
        or, where its spacing is known, at the model's spacing.
    id
        Number in the store; empty for corrections that are in none.
    """

    image: Image
    prediction: NDArray[np.integer]
    labels: NDArray[np.integer]
    accepted: NDArray[np.bool_] | None = None
    diameter: float | None = None
    id: str = ""
