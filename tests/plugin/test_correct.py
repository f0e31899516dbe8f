"""Corrections are counted, stored, found again, and never undone by a model; with a real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Labels

from napari_xlstm_unet import correct_part
from napari_xlstm_unet.regions import Region

if TYPE_CHECKING:
    from conftest import Bench, SharedClient

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correct_part, "COUNT_SECONDS", 0.02)
    monkeypatch.setattr(correct_part, "SAVE_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def _forget(client: SharedClient) -> None:
    """Begin with an empty store."""
    entries = client.request("list_corrections").result(60).values["corrections"]
    client.request("forget_corrections", {"ids": [entry["id"] for entry in entries]}).result(60)


def _result(bench: Bench) -> Labels:
    """Segment and return the newest result layer."""
    bench.segment()
    return [layer for layer in bench.viewer.layers if isinstance(layer, Labels)][-1]


def _settled(bench: Bench) -> None:
    """Wait until everything is counted and stored."""
    state = bench.controller.correct.state
    bench.loop.until(lambda: not state.pending and not state.unsaved)


def _paint(layer: Labels, value: int, *window: tuple[int, int]) -> None:
    indices = np.meshgrid(*(np.arange(*span) for span in window), indexing="ij")
    layer.data_setitem(tuple(index.ravel() for index in indices), value)


def test_what_is_changed_is_counted_and_undone(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    labels = _result(bench)
    state = bench.controller.correct.state
    _settled(bench)
    assert state.available
    assert not state.counts.any
    objects = bench.controller.adjust.state.count
    _paint(labels, 0, (0, 96), (0, 96))
    _settled(bench)
    assert dict(state.counts.kinds) == {"deleted": objects}
    bench.loop.until(lambda: state.images == 1)
    labels.undo()  # emits no sign of its own
    _settled(bench)
    assert not state.counts.any
    bench.loop.until(lambda: state.images == 0)
    assert not bench.messages()


def test_what_is_accepted(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells", scale=(2, 2))
    labels = _result(bench)
    correct = bench.controller.correct
    labels.corner_pixels = np.array([[0, 0], [95, 95]])
    correct.accept(Region.VISIBLE)
    _settled(bench)
    assert correct.state.counts.accepted == bench.controller.adjust.state.count
    correct.withdraw()
    _settled(bench)
    assert not correct.state.counts.any
    correct.accept(Region.BOX)
    assert "Shapes" in bench.messages()[0]
    bench.viewer.add_shapes([[[0, 0], [0, 96], [96, 96], [96, 0]]], shape_type="rectangle")
    correct.accept(Region.BOX)
    _settled(bench)
    result = correct.result
    assert result is not None
    assert result.accepted is not None
    assert result.accepted[:48, :48].all()
    assert not result.accepted[50:].any()


def test_the_overlay_shows_the_three_states(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    labels = _result(bench)
    state = bench.controller.correct.state
    state.overlay = True
    _paint(labels, int(labels.data.max()) + 1, (60, 70), (60, 70))
    _settled(bench)
    [overlay] = [layer for layer in bench.viewer.layers if "corrected, accepted" in layer.name]
    assert (overlay.data[60:70, 60:70] == 1).all()
    assert bench.viewer.layers.selection.active is labels
    assert not overlay.editable
    state.overlay = False
    assert overlay not in bench.viewer.layers


def test_the_next_result_keeps_the_users_work(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    first = _result(bench)
    new, gone = int(first.data.max()) + 1, int(first.data[first.data > 0][0])
    deleted = first.data == gone
    _paint(first, 0, (0, 0), (0, 0))
    first.data[deleted] = 0
    _paint(first, new, (40, 52), (40, 60))
    drawn = first.data == new
    _settled(bench)
    before = first.data.copy()
    bench.controller.image.state.diameter = 15  # another answer of the model
    second = _result(bench)
    assert second is not first
    np.testing.assert_array_equal(first.data, before)
    np.testing.assert_array_equal(second.data == new, drawn)
    assert (second.data[deleted] > 0).mean() < 0.5
    _settled(bench)
    assert bench.controller.correct.result.layer is second
    assert bench.controller.correct.state.counts.any
    third = _result(bench)
    assert third is second  # it was not edited: the same layer, the user's work again in it
    np.testing.assert_array_equal(third.data == new, drawn)
    bench.controller.adjust.adjust(threshold=0.6)
    bench.loop.until(lambda: not bench.controller.adjust.state.pending)
    np.testing.assert_array_equal(second.data == new, drawn)


def test_sliders_keep_the_users_work(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    first = _result(bench)
    new = int(first.data.max()) + 1
    _paint(first, new, (40, 52), (40, 60))
    bench.controller.adjust.adjust(threshold=0.7)
    bench.loop.until(lambda: not bench.controller.adjust.state.pending)
    second = bench.viewer.layers[-1]
    assert second is not first
    np.testing.assert_array_equal(second.data == new, first.data == new)


def test_slices_of_a_stack_are_stored_one_by_one(bench: Bench, cells: np.ndarray) -> None:
    slices = np.stack([cells[:64, :64], cells[64:128, :64], cells[:64, 64:128]])
    bench.viewer.add_image(slices, name="stack", axis_labels=("z", "y", "x"))
    bench.controller.image.state.stitch = False
    labels = _result(bench)
    new = int(labels.data.max()) + 1
    _paint(labels, new, (1, 2), (20, 30), (20, 30))
    _settled(bench)
    bench.loop.until(lambda: bench.controller.correct.state.images == 1)
    _paint(labels, new + 1, (2, 3), (20, 30), (20, 30))
    _settled(bench)
    bench.loop.until(lambda: bench.controller.correct.state.images == 2)
    entries = bench.controller.client.request("list_corrections").result(30).values["corrections"]
    assert sorted(entry["image"] for entry in entries) == ["stack, Z 1", "stack, Z 2"]


def test_two_regions_of_one_image_are_one_entry(bench: Bench, cells: np.ndarray) -> None:
    image = bench.viewer.add_image(cells, name="cells")
    bench.controller.image.state.region = Region.VISIBLE
    drawn = []
    for start in (0, 128):
        image.corner_pixels = np.array([[start, 0], [start + 95, 95]])
        labels = _result(bench)
        _paint(labels, int(labels.data.max()) + 1, (40, 52), (40, 60))
        _settled(bench)
        drawn.append((slice(start + 40, start + 52), slice(40, 60)))
    client = bench.controller.client
    [entry] = client.request("list_corrections").result(30).values["corrections"]
    loaded = client.request("load_corrections", {"id": entry["id"]}).result(30).arrays
    assert loaded["labels"].shape == cells.shape
    for window in drawn:
        assert len(np.unique(loaded["labels"][window])) == 1
    numbers = [loaded["labels"][window][0, 0] for window in drawn]
    assert numbers[0] != numbers[1] > 0


def test_labels_beyond_the_models_are_left_out(bench: Bench, cells: np.ndarray) -> None:
    bench.use("halves", None)
    bench.viewer.add_image(cells[:64, :64], name="cells")
    labels = _result(bench)
    _paint(labels, 3, (0, 20), (0, 20))
    _settled(bench)
    state = bench.controller.correct.state
    assert state.beyond == (3,)
    assert not state.counts.corrected
    _paint(labels, 1 if labels.data[40, 40] == 2 else 2, (30, 50), (30, 50))
    _settled(bench)
    assert state.counts.corrected
    assert not bench.messages()


def test_what_was_stored_is_found_again(bench: Bench, cells: np.ndarray) -> None:
    image = bench.viewer.add_image(cells[:96, :96], name="cells")
    labels = _result(bench)
    _paint(labels, int(labels.data.max()) + 1, (40, 52), (40, 60))
    labels.corner_pixels = np.array([[0, 0], [20, 95]])
    bench.controller.correct.accept(Region.VISIBLE)
    _settled(bench)
    counts, left = bench.controller.correct.state.counts, labels.data.copy()
    bench.viewer.layers.clear()
    state = bench.controller.correct.state
    bench.viewer.add_image(cells[96:192, :96], name="other")
    bench.viewer.add_image(image.data, name="the same")
    bench.loop.until(lambda: state.found)
    assert str(counts) in state.found
    bench.controller.restore.restore()
    restored = bench.viewer.layers[-1]
    np.testing.assert_array_equal(restored.data, left)
    _settled(bench)
    assert state.counts == counts
    assert not state.found
    # and Segment pastes it where it was not restored
    bench.viewer.layers.remove(restored)
    again = _result(bench)
    np.testing.assert_array_equal(again.data[40:52, 40:60], left[40:52, 40:60])


def test_what_is_forgotten_stays_forgotten(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    labels = _result(bench)
    new = int(labels.data.max()) + 1
    _paint(labels, new, (40, 52), (40, 60))
    _settled(bench)
    controller, state = bench.controller, bench.controller.correct.state
    bench.loop.until(lambda: controller.versions.state.corrections)
    controller.versions.forget([entry.id for entry in controller.versions.state.corrections])
    bench.loop.until(lambda: not controller.versions.state.corrections)
    _settled(bench)
    assert not state.counts.any
    assert (labels.data[40:52, 40:60] == new).all()
    _paint(labels, 0, (0, 96), (0, 30))  # only what is changed from now on counts
    _settled(bench)
    bench.loop.until(lambda: state.images == 1)
    assert "added" not in dict(state.counts.kinds)


def test_closing_saves_what_was_not_saved_yet(
    bench: Bench, cells: np.ndarray, client: SharedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correct_part, "SAVE_SECONDS", 600.0)
    bench.viewer.add_image(cells[:96, :96], name="cells")
    labels = _result(bench)
    _settled(bench)
    _paint(labels, int(labels.data.max()) + 1, (40, 52), (40, 60))
    bench.loop.until(lambda: bench.controller.correct.state.unsaved)
    bench.controller.close()
    bench.loop.until(lambda: client.request("list_corrections").result(60).values["corrections"])


@pytest.mark.slow
def test_a_killed_napari_loses_nothing(bench: Bench, cells: np.ndarray, home: Path) -> None:
    script = [sys.executable, str(HERE / "crash_process.py")]
    with subprocess.Popen(script, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert line.startswith("saved "), line
    bench.viewer.add_image(cells[:96, :96], name="cells")
    state = bench.controller.correct.state
    bench.loop.until(lambda: state.found)
    bench.controller.restore.restore()
    restored = bench.viewer.layers[-1]
    drawn = int(line.split()[1])
    assert (restored.data[40:52, 40:60] == drawn).all()
    assert (restored.data == drawn).sum() == 12 * 20
