"""Sheets of best, median and worst."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from xlstm_unet.images import Image
from xlstm_unet.learn import Sample
from xlstm_unet.study.pictures import write_sheet
from xlstm_unet.study.scoring import Scored, score_method


def rows(count: int) -> list[Scored]:
    """Images of falling score, each of another brightness; of n squares the last n - i are found."""
    truth = np.zeros((40, 60), np.int32)
    for i in range(count):
        truth[4:12, 2 + 10 * i : 9 + 10 * i] = i + 1
    samples = [
        Sample(f"s{i}", "test", "", "", Image(np.full((40, 60, 3), 40 * i + 40, np.uint8), "YXC"), truth)
        for i in range(count)
    ]
    missed = iter(range(count))

    def method(image: Image) -> np.ndarray:
        return np.where(truth > next(missed), truth, 0)

    return score_method(method, samples)


def brightness(sheet: np.ndarray, top: int) -> int:
    return int(round(float(sheet[top + 15 : top + 35, :60].mean()), -1))


def test_sheet_has_best_median_and_worst_from_top(tmp_path: Path) -> None:
    write_sheet(tmp_path / "sheet.png", rows(5)[::-1])
    with Pillow.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB"))
    height = len(sheet) // 3
    assert [brightness(sheet, height * i + height - 40) for i in range(3)] == [40, 120, 200]


def test_prediction_stands_right_of_truth(tmp_path: Path) -> None:
    (row,) = rows(5)[4:]
    write_sheet(tmp_path / "sheet.png", [row])
    with Pillow.open(tmp_path / "sheet.png") as picture:
        sheet = np.asarray(picture.convert("RGB")).astype(int)
    assert sheet.shape[1] == 8 * (2 * 60 + 4), "a small picture is enlarged by a whole factor"
    coloured = np.ptp(sheet[-320:], axis=2) > 30
    assert coloured[:, :480].sum() > 3 * coloured[:, 512:].sum() > 0


def test_few_images_are_shown_once(tmp_path: Path) -> None:
    heights = []
    for count in (1, 2, 3):
        write_sheet(tmp_path / "sheet.png", rows(count))
        with Pillow.open(tmp_path / "sheet.png") as picture:
            heights.append(picture.height)
    assert heights == [heights[0], 2 * heights[0], 3 * heights[0]]
