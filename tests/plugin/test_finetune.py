"""Fine-tuning behind the dock, with a real worker: start, follow, stop, judge, keep, undo, forget."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from napari.layers import Labels

from napari_xlstm_unet import correct_part
from napari_xlstm_unet.learn_state import Shown, Training
from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.state import Phase

if TYPE_CHECKING:
    from conftest import Bench, SharedClient


@pytest.fixture(autouse=True)
def _clean(client: SharedClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Begin and end without corrections and versions of the tests' model."""
    monkeypatch.setattr(correct_part, "COUNT_SECONDS", 0.02)
    monkeypatch.setattr(correct_part, "SAVE_SECONDS", 0.05)
    yield
    entries = client.request("list_corrections").result(60).values["corrections"]
    client.request("forget_corrections", {"ids": [entry["id"] for entry in entries]}).result(60)
    for model in client.request("list_versions").result(60).values["models"]:
        for version in model["versions"]:
            if version["pending"]:
                client.request("discard_version", {"version": version["version"]}).result(60)
    if "plane-tuned" in [m["name"] for m in client.request("list_models").result(60).values["models"]]:
        client.request("remove_model", {"model": "plane-tuned"}).result(60)


def _corrected(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> Labels:
    """Segment a part of a sample, and correct some of it as a user would."""
    bench.viewer.add_image(cells[:128, :128], name="cells")
    bench.segment()
    labels = bench.viewer.layers[-1]
    labels.data[:80] = np.where(truth[:80, :128] > 0, truth[:80, :128] + 1000, 0)
    labels.refresh()
    state = bench.controller.correct.state
    bench.loop.until(lambda: state.counts.any and not state.pending and not state.unsaved)
    return labels


def _train(bench: Bench, *, steps: int) -> None:
    """Start, and stop after some steps."""
    finetune = bench.controller.finetune
    finetune.start()
    assert bench.controller.job.phase is Phase.TRAINING
    bench.loop.until(lambda: len(finetune.state.curve.loss) >= steps or finetune.state.pending)
    finetune.stop()
    bench.loop.until(lambda: finetune.state.phase is Training.JUDGING)
    bench.loop.until(lambda: finetune.state.can_compare and bench.controller.job.phase is Phase.READY)


def test_correct_train_look_keep_undo(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> None:
    labels = _corrected(bench, cells, truth)
    mine = labels.data.copy()
    controller, state = bench.controller, bench.controller.finetune.state
    _train(bench, steps=5)
    assert state.pending is not None
    assert state.pending.steps >= 1
    assert state.pending.verdict in ("keep", "warn", "refuse", "too-few")
    assert state.pending.message
    assert state.curve.loss[-1][0] > state.curve.loss[0][0] > 0

    # before and after, in a layer of its own
    assert state.shown is Shown.AFTER
    assert not labels.visible
    compared = bench.viewer.layers[-1]
    after = compared.data.copy()
    state.shown = Shown.BEFORE
    np.testing.assert_array_equal(compared.data, controller.correct.result.outcome.snapshot)
    assert not np.array_equal(compared.data, after)
    state.shown = Shown.MINE
    assert labels.visible
    assert not compared.visible

    # kept: the model is the new version, and the image is segmented with it, the user's work pasted in
    controller.finetune.keep()
    bench.loop.until(lambda: controller.model.state.name == "plane-tuned")
    bench.loop.until(lambda: controller.job.phase is Phase.READY)
    assert compared not in bench.viewer.layers
    fresh = bench.viewer.layers[-1]
    assert fresh.name == "cells - plane-tuned"
    np.testing.assert_array_equal(labels.data, mine)
    for value in np.unique(mine[mine > 1000]):
        np.testing.assert_array_equal(fresh.data == value, mine == value)
    bench.loop.until(lambda: controller.versions.state.current == 1)
    assert [version.number for version in controller.versions.state.versions] == [0, 1]

    controller.versions.undo()
    bench.loop.until(lambda: controller.versions.state.current == 0)
    controller.versions.use(1)
    bench.loop.until(lambda: controller.versions.state.current == 1)

    # and what it learned from can be forgotten
    bench.loop.until(lambda: controller.versions.state.corrections)
    controller.versions.forget([entry.id for entry in controller.versions.state.corrections])
    bench.loop.until(lambda: not controller.versions.state.corrections)
    assert any("forgotten" in told for told in bench.messages())


def test_discard_leaves_the_model(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> None:
    labels = _corrected(bench, cells, truth)
    _train(bench, steps=1)
    finetune = bench.controller.finetune
    finetune.discard()
    assert finetune.state.phase is Training.IDLE
    assert labels.visible
    assert bench.viewer.layers[-1] is labels
    bench.controller.model.refresh()
    bench.loop.until(lambda: not bench.controller.versions.state.waiting)
    assert "plane-tuned" not in [info.name for info in bench.controller.model.state.models]
    assert not bench.messages()


def test_cancel_is_heard_within_a_second_or_so(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> None:
    _corrected(bench, cells, truth)
    finetune = bench.controller.finetune
    finetune.start()
    bench.loop.until(lambda: finetune.state.curve.loss)
    started = time.monotonic()
    finetune.cancel()
    bench.loop.until(lambda: finetune.state.phase is Training.IDLE)
    assert time.monotonic() - started < 3
    assert bench.controller.job.phase is Phase.READY
    assert finetune.state.pending is None
    assert not bench.messages()
    bench.controller.versions.refresh()
    bench.segment()  # the worker is well


def test_painting_goes_on_while_it_trains(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> None:
    labels = _corrected(bench, cells, truth)
    finetune, correct = bench.controller.finetune, bench.controller.correct
    before = correct.state.counts.corrected
    finetune.start()
    bench.loop.until(lambda: finetune.state.curve.loss)
    value = int(labels.data.max()) + 1
    labels.data_setitem(
        tuple(i.ravel() for i in np.meshgrid(np.arange(100, 110), np.arange(100, 112))), value
    )
    bench.loop.until(lambda: correct.state.counts.corrected != before and not correct.state.unsaved)
    assert finetune.state.phase is Training.RUNNING  # counted and stored beside it
    finetune.cancel()
    bench.loop.until(lambda: finetune.state.phase is Training.IDLE)


def test_without_corrections(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:64, :64], name="cells")
    bench.segment()
    bench.controller.finetune.start()
    bench.loop.until(lambda: bench.controller.finetune.state.phase is Training.IDLE)
    [told] = bench.messages()
    assert "corrections" in told
    assert bench.controller.job.phase is Phase.READY


def test_everything_accepted(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:96, :96], name="cells")
    bench.segment()
    bench.viewer.layers[-1].corner_pixels = np.array([[0, 0], [95, 95]])
    bench.controller.correct.accept(Region.VISIBLE)
    _train(bench, steps=1)
    assert bench.controller.finetune.state.pending.counts.accepted > 0


def test_a_worker_killed_while_it_trains(
    bench: Bench, cells: np.ndarray, truth: np.ndarray, client: SharedClient
) -> None:
    _corrected(bench, cells, truth)
    finetune = bench.controller.finetune
    finetune.start()
    bench.loop.until(lambda: finetune.state.curve.loss)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    bench.loop.until(lambda: finetune.state.phase is Training.IDLE)
    assert "worker" in bench.messages()[0]
    assert bench.controller.job.phase is Phase.READY
    bench.segment()
    entries = client.request("list_corrections").result(60).values["corrections"]
    assert [entry["problem"] for entry in entries] == [""]


def test_an_undecided_version_is_offered_again(bench: Bench, cells: np.ndarray, truth: np.ndarray) -> None:
    _corrected(bench, cells, truth)
    _train(bench, steps=1)
    pending = bench.controller.finetune.state.pending
    other = type(bench)(bench.controller.client)
    try:
        other.use("plane")
        other.loop.until(lambda: other.controller.finetune.state.pending)
        assert other.controller.finetune.state.pending.id == pending.id
        other.controller.finetune.discard()
    finally:
        other.controller.close()
