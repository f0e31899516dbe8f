"""How large an image may be: checked before anything of that size is allocated."""

from __future__ import annotations

import math
import os

from xlstm_unet.errors import ImageError

MAX_BYTES = 2**34
"""Largest decoded image in bytes (16 GiB) where nothing else is asked for."""
MAX_BYTES_VARIABLE = "XLSTM_UNET_MAX_IMAGE_BYTES"
"""Environment variable that raises or lowers `MAX_BYTES`."""


def max_bytes() -> int:
    """Return the limit in force: the environment variable where set, else `MAX_BYTES`."""
    text = os.environ.get(MAX_BYTES_VARIABLE, "")
    if not text:
        return MAX_BYTES
    try:
        limit = int(text)
    except ValueError:
        limit = 0
    if limit < 1:
        raise ImageError(f"{MAX_BYTES_VARIABLE} is {text!r}, expected a whole number of bytes.")
    return limit


def check_size(name: str, shape: tuple[int, ...], itemsize: int, limit: int | None = None) -> None:
    """Refuse an image of ``shape`` with ``itemsize`` bytes a value if it exceeds the limit.

    Raises
    ------
    ImageError
        With the size found and the limit.
    """
    limit = max_bytes() if limit is None else limit
    size = math.prod(int(n) for n in shape) * itemsize
    if size > limit:
        sides = " x ".join(str(n) for n in shape)
        raise ImageError(
            f"{name}: image of {sides} values takes {size / 2**30:.1f} GiB, "
            f"the limit is {limit / 2**30:.1f} GiB.",
            f"Crop it, or raise the limit with {MAX_BYTES_VARIABLE} (bytes).",
        )
