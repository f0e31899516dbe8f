"""Sheets of pictures: the best, median and worst image of a kind, truth beside prediction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from xlstm_unet.files import atomic_path
from xlstm_unet.images import draw_overlay
from xlstm_unet.study.scoring import Scored

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

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
    from PIL import Image as Pillow

    ordered = sorted(rows, key=lambda row: (row.scores[metric], row.scores["ap_50_95"]), reverse=True)
    places = {"best": 0, "median": len(ordered) // 2, "worst": len(ordered) - 1}
    chosen = {place: name for name, place in reversed(places.items())}
    pairs = [_pair(chosen[place], ordered[place]) for place in sorted(chosen)]
    sheet = Pillow.new("RGB", (max(p.width for p in pairs), sum(p.height for p in pairs)))
    top = 0
    for pair in pairs:
        sheet.paste(pair, (0, top))
        top += pair.height
    with atomic_path(path) as temporary:
        sheet.quantize(_COLOURS).save(temporary, format="PNG", optimize=True)


def _pair(name: str, row: Scored) -> Picture:
    from PIL import Image as Pillow
    from PIL import ImageDraw

    truth, found = (
        draw_overlay(row.sample.image, labels, max_side=SIDE) for labels in (row.sample.labels, row.labels)
    )
    gap = np.zeros((len(truth), _GAP, 3), dtype=np.uint8)
    both = Pillow.fromarray(np.hstack([truth, gap, found]))
    pair = Pillow.new("RGB", (both.width, both.height + _CAPTION))
    pair.paste(both, (0, _CAPTION))
    scores = row.scores
    caption = (
        f"{name}: {row.sample.id}  F1 {scores['f1_50']:.2f}  AP {scores['ap_50_95']:.2f}  "
        f"true {scores['n_true']:.0f}, found {scores['n_pred']:.0f}"
    )
    ImageDraw.Draw(pair).text((2, 3), caption, fill=(255, 255, 255))
    return pair
