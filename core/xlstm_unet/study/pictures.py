"""Sheets of pictures: the best, median and worst image of a kind, truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.files import atomic_path
from xlstm_unet.images import Image, draw_overlay
from xlstm_unet.study.scoring import Scored

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Labels = NDArray[np.int32]
SIDE = 480
"""Longest side of one picture in pixels."""
_CAPTION, _GAP = 18, 4
_COLOURS = 128


def write_sheet(path: Path, rows: Sequence[Scored], *, metric: str = "f1_50") -> None:
    """Write best, median and worst of some images as one PNG, truth on the left, prediction on the right.

    Parameters
    ----------
    path
        Ends in ``.png``.
    rows
        Scored images of one kind.
    metric
        Score that they are sorted by; ties by AP.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    ordered = sorted(rows, key=lambda row: (row.scores[metric], row.scores["ap_50_95"]), reverse=True)
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    chosen = {place: name for name, place in reversed(places.items())}
    write_pairs(
        path,
        [
            (_caption(chosen[place], row), row.sample.image, row.sample.labels, row.labels)
            for place, row in ((place, ordered[place]) for place in sorted(chosen))
        ],
    )


def write_pairs(path: Path, pairs: Sequence[tuple[str, Image, Labels, Labels]]) -> None:
    """Write captioned pictures below each other, truth on the left, prediction on the right.

    Parameters
    ----------
    path
        Ends in ``.png``.
    pairs
        Caption, image, true and predicted labels.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    from PIL import Image as Pillow

    pictures = [_pair(*pair) for pair in pairs]
    sheet = Pillow.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)))
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    with atomic_path(path) as temporary:
        sheet.quantize(_COLOURS).save(temporary, format="PNG", optimize=True)


def _caption(name: str, row: Scored) -> str:
    scores = row.scores
    return (
        f"{name}: {row.sample.id}  F1 {scores['f1_50']:.2f}  AP {scores['ap_50_95']:.2f}  "
        f"true {scores['n_true']:.0f}, found {scores['n_pred']:.0f}"
    )


def _pair(caption: str, image: Image, true: Labels, predicted: Labels) -> Picture:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    truth, found = (draw_overlay(image, labels, max_side=SIDE) for labels in (true, predicted))
    gap = np.zeros((len(truth), _GAP, 3), dtype=np.uint8)
    both = Pillow.fromarray(np.hstack([truth, gap, found]))
    if (factor := SIDE // max(truth.shape[:2])) > 1:
        both = both.resize((factor * both.width, factor * both.height), Pillow.Resampling.NEAREST)
    pair = Pillow.new("RGB", (both.width, both.height + _CAPTION))
    pair.paste(both, (0, _CAPTION))
    ImageDraw.Draw(pair).text((2, 3), caption, fill=(255, 255, 255))
    return pair
