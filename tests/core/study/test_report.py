"""Tables and JSON of studies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from xlstm_unet.measure import Interval
from xlstm_unet.study.report import cell, jsonable, machine, table, write_json, write_text


def test_table_is_markdown() -> None:
    text = table(("a", "b"), [("x", 0.12345), (None, Interval(0.5, 0.25, 1.0))])
    assert text.splitlines() == [
        "| a | b |",
        "| --- | --- |",
        "| x | 0.123 |",
        "|  | 0.500 (0.250 to 1.000) |",
    ]
    assert cell(math.nan) == "-"


def test_json_holds_intervals_as_lists_and_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"gain": Interval(1 / 3, 0.0, 1.0), "sd": math.nan, "list": (1, 2.0)})
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == {"gain": [0.33333, 0.0, 1.0], "sd": None, "list": [1, 2.0]}
    assert jsonable("0.123456789") == "0.123456789"


def test_text_leaves_empty_blocks_out(tmp_path: Path) -> None:
    write_text(tmp_path / "a.md", "# a", "", "b")
    assert (tmp_path / "a.md").read_text() == "# a\n\nb\n"


def test_machine_says_where() -> None:
    found = machine(torch.device("cpu"))
    assert found["device"] == "cpu"
    assert found["name"]
    assert found["threads"] == torch.get_num_threads()
