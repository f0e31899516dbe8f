"""How the axes of a napari layer are read, and what else they could be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

AXES = "TCZYX"
"""Time, channel, z, y, x: every axis an image can have."""

_FEW = 4
"""A leading axis no longer than this, of an unlabelled layer, is read as channels."""

_WORDS = {
    "T": {"t", "time", "frame", "frames"},
    "C": {"c", "ch", "channel", "channels"},
    "Z": {"z", "depth", "slice", "slices", "plane"},
    "Y": {"y", "row", "rows", "height"},
    "X": {"x", "col", "column", "columns", "width"},
}

_NOUNS = {"T": ("frame", "frames"), "C": ("channel", "channels"), "Z": ("slice", "slices")}


def read_axes(shape: Sequence[int], *, rgb: bool = False, labels: Sequence[str] = ()) -> str:
    """Return one letter an axis for an array of ``shape``.

    Labels of the layer decide where all of them are known; otherwise the last two axes are Y and X, a leading
    axis of at most four entries is channels, and what is left is Z, then T.

    Parameters
    ----------
    shape
        Shape of the array, colour axis included.
    rgb
        Whether the last axis holds red, green, blue (and alpha).
    labels
        Axis labels of the layer (without the colour axis).

    Raises
    ------
    ValueError
        If there are fewer than two or more than five axes.
    """
    if rgb:
        if not 3 <= len(shape) <= len(AXES):
            raise ValueError(f"a colour image has {len(shape)} axes, expected 3 to {len(AXES)}")
        return _read_plain(shape[:-1], labels, channels=False) + "C"
    return _read_plain(shape, labels, channels=True)


def _read_plain(shape: Sequence[int], labels: Sequence[str], *, channels: bool) -> str:
    if not 2 <= len(shape) <= len(AXES):
        raise ValueError(f"the image has {len(shape)} axes, expected 2 to {len(AXES)}")
    named = "".join(_letter(label) for label in labels)
    if len(named) == len(shape) == len(set(named)) and {"Y", "X"} <= set(named):
        return named
    leading = len(shape) - 2
    letters = {0: "", 1: "Z", 2: "TZ", 3: "TZ"}[leading]
    if channels and leading:
        smallest = min(range(leading), key=lambda axis: shape[axis])
        if leading == 3 or 1 < shape[smallest] <= _FEW:
            others = letters[-(leading - 1) :] if leading > 1 else ""
            letters = others[:smallest] + "C" + others[smallest:]
    return letters + "YX"


def _letter(label: str) -> str:
    word = str(label).strip().lower()
    return next((axis for axis, words in _WORDS.items() if word in words), "")


def axes_choices(ndim: int, *, rgb: bool = False) -> tuple[str, ...]:
    """Return every reading of an array of ``ndim`` axes (colour axis included) that a user may choose."""
    if rgb:
        return tuple(
            "".join(leading) + "YXC" for leading in permutations("TZ", ndim - 3) if len(leading) == ndim - 3
        )
    choices = ["".join(leading) + "YX" for leading in permutations("ZTC", ndim - 2)]
    if ndim == 3:
        choices.append("YXC")
    return tuple(choices)


def describe_axes(axes: str, shape: Sequence[int]) -> str:
    """Return one line for people: ``"30 slices of 512 × 512 pixels"``."""
    size = dict(zip(axes, shape, strict=True))
    counts = []
    for axis in "TZC":
        if axis in size and not (axis == "C" and axes.endswith("C")):
            counts.append(f"{size[axis]} {_NOUNS[axis][size[axis] != 1]}")
    plane = f"{size['Y']} × {size['X']} pixels"
    text = " × ".join(counts) + (" of " if counts else "") + plane
    return text + (", colour" if axes.endswith("C") else "")
