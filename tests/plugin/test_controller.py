"""The plugin behind the dock, with a real worker and a viewer without a window."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Labels

from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.results import KEY
from napari_xlstm_unet.state import Finish, Phase
from xlstm_unet.images import read_labels
from xlstm_unet.worker.errors import HandleError

if TYPE_CHECKING:
    from conftest import Bench, SharedClient


def _results(bench: Bench) -> list[Labels]:
    return [layer for layer in bench.viewer.layers if isinstance(layer, Labels)]


def _objects(labels: Labels) -> int:
    return len(np.unique(np.asarray(labels.data))) - 1


def test_a_gray_image(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells, name="cells", scale=(0.5, 0.5), translate=(3, 4), units=("um", "um"))
    bench.segment()
    [labels] = _results(bench)
    assert labels.name == "cells - plane"
    assert labels.data.shape == cells.shape
    assert labels.data.dtype == np.uint16
    np.testing.assert_allclose(labels.scale, (0.5, 0.5))
    np.testing.assert_allclose(labels.translate, (3, 4))
    assert {str(unit) for unit in labels.units} == {"micrometer"}
    assert labels.metadata[KEY]["model"] == "plane"
    assert labels.metadata[KEY]["image"] == "cells"
    assert bench.controller.job.finish is Finish.DONE
    assert bench.controller.adjust.state.count == _objects(labels) > 0


@pytest.mark.parametrize(
    ("shape", "axes", "labels_shape"),
    [
        ((2, 64, 80), "CYX", (64, 80)),
        ((3, 64, 80), "TYX", (3, 64, 80)),
        ((5, 40, 48), "ZYX", (5, 40, 48)),
        ((2, 3, 40, 48), "TZYX", (2, 3, 40, 48)),
        ((3, 2, 40, 48), "ZCYX", (3, 40, 48)),
        ((2, 1, 3, 40, 48), "TCZYX", (2, 3, 40, 48)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_stack(
    bench: Bench, cells: np.ndarray, shape: tuple[int, ...], axes: str, labels_shape: tuple[int, ...]
) -> None:
    values = np.broadcast_to(cells[: shape[-2], : shape[-1]], shape).copy()
    image = bench.viewer.add_image(values, name="stack")
    bench.controller.image.choose(image.name)
    bench.controller.image.correct_axes(axes)
    assert bench.controller.image.state.can_stitch == ("Z" in axes)
    bench.segment()
    [labels] = _results(bench)
    assert labels.data.shape == labels_shape
    data = np.asarray(labels.data)
    if "Z" in axes:  # equal slices: every object goes through the whole stack
        depth = axes.replace("C", "").index("Z")
        np.testing.assert_array_equal(data, np.repeat(data.take([0], depth), data.shape[depth], depth))
    if "T" in axes:  # frames are numbered on
        assert not set(np.unique(data[0])) & set(np.unique(data[1])) - {0}


def test_colour(bench: Bench) -> None:
    bench.viewer.open_sample  # noqa: B018 - present without a window, but samples need the registry
    from napari_xlstm_unet.samples import histology_white

    [(data, keywords, _)] = histology_white()
    bench.viewer.add_image(data[:96, :96], **keywords)
    state = bench.controller.image.state
    assert (state.axes, [choice.title for choice in state.channel_choices][:2]) == (
        "YXC",
        ["Brightness", "Red"],
    )
    bench.segment()
    assert _results(bench)[0].data.shape == (96, 96)


def test_a_model_of_volumes(bench: Bench, cells: np.ndarray) -> None:
    bench.use("volume")
    bench.viewer.add_image(np.repeat(cells[np.newaxis, :40, :48], 8, 0), name="stack", scale=(2, 1, 1))
    assert not bench.controller.image.state.can_stitch
    bench.segment()
    [labels] = _results(bench)
    assert labels.data.shape == (8, 40, 48)
    np.testing.assert_allclose(labels.scale, (2, 1, 1))


def test_a_model_of_classes(bench: Bench, cells: np.ndarray) -> None:
    bench.use("halves", None)
    bench.viewer.add_image(cells[:64, :64])
    bench.segment()
    [labels] = _results(bench)
    np.testing.assert_allclose(labels.colormap.map(np.array([1]))[0], (1, 0, 0, 1))
    assert list(labels.features["label"]) == ["background", "left", "right"]
    assert not bench.controller.adjust.state.available


def test_a_pyramid_is_segmented_at_the_level_that_fits(bench: Bench, cells: np.ndarray) -> None:
    pyramid = [cells, cells[::2, ::2], cells[::4, ::4]]
    image = bench.viewer.add_image(pyramid, multiscale=True, name="pyramid", scale=(0.1, 0.1))
    bench.controller.image.state.diameter = 45  # the model knows 20
    bench.segment()
    [labels] = _results(bench)
    assert labels.data.shape == (128, 128)
    np.testing.assert_allclose(labels.extent.world, image.extent.world, atol=0.11)
    bench.controller.image.state.level = 2
    bench.segment()
    assert _results(bench)[1].data.shape == (64, 64)


def test_dask_is_read_where_it_is_segmented(bench: Bench, cells: np.ndarray) -> None:
    da = pytest.importorskip("dask.array")
    read: list[Any] = []

    def block(block_info: Any = None) -> np.ndarray:
        read.append(block_info[None]["chunk-location"])
        return np.broadcast_to(cells[0, 0], (1, 2048, 2048))

    frames = da.map_blocks(block, chunks=((1,) * 100, (2048,) * 5, (2048,) * 5), dtype=np.uint8)
    image = bench.viewer.add_image(frames, name="huge", contrast_limits=(0, 255), axis_labels=("t", "y", "x"))
    bench.viewer.dims.set_point(0, 7)
    state = bench.controller.image.state
    assert state.axes == "TYX"
    bench.controller.segment.press()
    [told] = bench.messages()
    assert "GB" in told
    assert "Visible area" in told
    image.corner_pixels = np.array([[0, 2064, 2164], [0, 2127, 2227]])
    state.region = Region.VISIBLE
    read.clear()
    bench.segment()
    assert {tuple(place) for place in read} == {(7, 1, 1)}
    [labels] = _results(bench)
    assert labels.data.shape == (1, 64, 64)
    np.testing.assert_allclose(labels.translate, (7, 2064, 2164))


def test_a_box(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells, name="cells", scale=(2, 2))
    bench.viewer.add_shapes([[[20, 40], [20, 140], [90, 140], [90, 40]]], shape_type="rectangle")
    bench.controller.image.state.region = Region.BOX
    bench.segment()
    [labels] = _results(bench)
    assert labels.data.shape == (36, 51)
    np.testing.assert_allclose(labels.translate, (20, 40))


def test_an_edited_layer_is_never_overwritten(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:64, :64], name="cells")
    bench.segment()
    bench.segment()
    [first] = _results(bench)  # not edited: the same layer again
    first.data[:10, :10] = 777
    bench.segment()
    assert len(_results(bench)) == 2
    assert (first.data[:10, :10] == 777).all()
    bench.controller.adjust.attach(bench.controller.results.of_layer(first))
    bench.controller.adjust.adjust(threshold=0.6)
    bench.loop.until(lambda: not bench.controller.adjust.state.pending)
    assert len(_results(bench)) == 3
    assert (first.data[:10, :10] == 777).all()


def test_sliders_decode_again(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:128, :128], name="cells")
    bench.segment()
    adjust = bench.controller.adjust
    [labels] = _results(bench)
    before = labels.data.copy()
    started = time.perf_counter()
    for threshold in (0.51, 0.55, 0.6, 0.7):
        adjust.adjust(threshold=threshold)
    bench.loop.until(lambda: not adjust.state.pending)
    assert time.perf_counter() - started < 5
    assert adjust.state.count == _objects(labels)
    assert (labels.data > 0).sum() < (before > 0).sum()
    adjust.adjust(min_size=10_000)
    bench.loop.until(lambda: not adjust.state.pending)
    assert not labels.data.any()
    adjust.reset()
    bench.loop.until(lambda: not adjust.state.pending)
    np.testing.assert_array_equal(labels.data, before)
    assert len(_results(bench)) == 1


def test_sliders_of_a_stack(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(np.repeat(cells[np.newaxis, :48, :48], 20, 0), name="stack")
    bench.segment()
    [labels] = _results(bench)
    bench.controller.adjust.adjust(seed_height=0.4)
    bench.loop.until(lambda: not bench.controller.adjust.state.pending)
    np.testing.assert_array_equal(labels.data[0], labels.data[2])
    assert bench.controller.adjust.state.count == _objects(labels)


def test_sliders_after_the_maps_are_gone(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:64, :64], name="cells")
    bench.segment()
    adjust = bench.controller.adjust
    assert adjust.result is not None
    for handle in adjust.result.outcome.handles.values():
        bench.controller.client.request("release", {"handle": handle}).result(10)
    adjust.adjust(threshold=0.6)
    bench.loop.until(lambda: not adjust.state.pending)
    assert "Press Segment" in bench.messages()[0]
    assert not adjust.state.available


def test_removing_a_result_frees_its_maps(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(cells[:64, :64], name="cells")
    bench.segment()
    assert bench.controller.adjust.result is not None
    [handle] = bench.controller.adjust.result.outcome.handles.values()
    bench.viewer.layers.remove("cells - plane")
    assert not bench.controller.adjust.state.available
    with pytest.raises(HandleError):
        bench.controller.client.request("decode", {"handle": handle}).result(10)


def test_cancel_leaves_no_layer_and_the_next_run_works(bench: Bench, cells: np.ndarray) -> None:
    bench.viewer.add_image(np.tile(cells, (6, 6)), name="large")
    controller = bench.controller
    controller.segment.press()
    bench.loop.until(lambda: controller.job.progress > 0)
    started = time.monotonic()
    controller.segment.press()
    assert controller.job.phase is Phase.CANCELLING
    bench.wait()
    assert time.monotonic() - started < 3
    assert controller.job.finish is Finish.CANCELLED
    assert not _results(bench)
    assert not bench.messages()
    controller.image.state.region = Region.ALL
    bench.viewer.layers["large"].data = cells[:64, :64]
    bench.segment()
    assert len(_results(bench)) == 1


def test_cancel_does_not_wait_for_a_slow_disk(bench: Bench, cells: np.ndarray) -> None:
    da = pytest.importorskip("dask.array")
    fast = threading.Event()
    fast.set()

    def read(block: np.ndarray) -> np.ndarray:
        fast.wait(30)
        return block

    slow = da.from_array(cells[:64, :64], chunks=64).map_blocks(read, dtype=np.uint8)
    bench.viewer.add_image(slow, contrast_limits=(0, 255), name="slow")
    fast.clear()
    controller = bench.controller
    controller.segment.press()
    bench.loop.until(lambda: controller.job.status == "Reading…")
    controller.segment.press()
    started = time.monotonic()
    bench.wait()
    assert time.monotonic() - started < 4
    assert controller.job.finish is Finish.CANCELLED
    fast.set()
    bench.segment()  # what the slow run gives in the end is dropped
    assert len(_results(bench)) == 1


def test_a_killed_worker_costs_a_message_and_no_more(
    bench: Bench, cells: np.ndarray, client: SharedClient
) -> None:
    bench.viewer.add_image(np.tile(cells, (6, 6)), name="large")
    controller = bench.controller
    controller.segment.press()
    bench.loop.until(lambda: controller.job.progress > 0)
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    bench.wait()
    assert controller.job.finish is Finish.FAILED
    [told] = bench.messages()
    assert "worker" in told
    assert not _results(bench)
    bench.viewer.layers["large"].data = cells[:64, :64]
    bench.segment()
    assert len(_results(bench)) == 1


def test_results_are_measured_as_the_user_left_them(bench: Bench, cells: np.ndarray, tmp_path: Path) -> None:
    bench.viewer.add_image(cells[:64, :64], name="cells", scale=(0.5, 0.5), units=("um", "um"))
    bench.segment()
    [labels] = _results(bench)
    data = np.zeros_like(labels.data)
    data[:4, :6] = 9
    labels.data = data
    measure = bench.controller.measure
    bench.controller.measure_result()
    bench.loop.until(lambda: not measure.state.pending)
    assert measure.state.columns == ("label", "area (µm²)", "diameter (µm)", "mean")
    [row] = measure.state.rows
    assert row[:2] == (9, pytest.approx(6.0))
    assert row[3] == pytest.approx(cells[:4, :6].mean())
    measure.write(tmp_path / "cells.csv")
    bench.loop.until((tmp_path / "cells.csv").exists)
    assert (tmp_path / "cells.csv").read_text().splitlines()[1].startswith("9,")


def test_a_folder(bench: Bench, cells: np.ndarray, tmp_path: Path) -> None:
    import tifffile

    folder = tmp_path / "images"
    folder.mkdir()
    tifffile.imwrite(folder / "one.tif", cells[:64, :64])
    tifffile.imwrite(folder / "two.tif", cells[64:128, :80])
    (folder / "three.tif").write_bytes(b"no image")
    batch = bench.controller.batch
    batch.choose_source(str(folder))
    batch.start()
    bench.wait()
    assert bench.controller.job.status == "2 of 3 images segmented."
    told = " ".join(bench.messages())
    assert "three.tif" in told
    assert read_labels(folder / "labels" / "one_labels.tif").shape == (64, 64)
    assert read_labels(folder / "labels" / "two_labels.tif").shape == (64, 80)
    assert (folder / "labels" / "one_objects.csv").read_text().startswith("label,")


def test_a_layer_added_under_the_same_name_and_renamed(bench: Bench, cells: np.ndarray) -> None:
    first = bench.viewer.add_image(cells[:32, :32], name="cells")
    second = bench.viewer.add_image(cells[:48, :48], name="cells")
    state = bench.controller.image.state
    assert state.layer == second.name
    second.name = "other"
    assert state.layer == "other"
    assert set(state.layers) == {first.name, "other"}
    bench.viewer.layers.selection = {first}
    assert state.layer == first.name
    bench.viewer.layers.remove(first)
    assert state.layer == "other"


@pytest.mark.parametrize(
    ("values", "model", "words"),
    [
        (None, "plane", ["no image", "Open"]),
        (np.zeros((0, 20, 20), np.uint8), "plane", ["empty", "another image"]),
        (np.full((40, 40), np.nan, np.float32), "plane", ["NaN"]),
        (np.zeros((40, 40), bool), "plane", ["bool", "Convert"]),
        (np.zeros((40, 40), np.uint8), "volume", ["without Z", "2D model"]),
        (np.zeros((40, 40), np.uint8), "pair", ["1 channel", "expects 2"]),
        (np.zeros((3, 40, 40), np.uint8), "pair", ["3 channels", "expects 2"]),
        (np.zeros((2, 2, 2, 2, 40, 40), np.uint8), "plane", ["6 axes", "2 to 5"]),
    ],
    ids=["none", "empty", "nan", "bool", "flat", "gray", "channels", "axes"],
)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_wrong_input_says_what_to_do(
    bench: Bench, values: np.ndarray | None, model: str, words: list[str]
) -> None:
    bench.use(model)
    if values is not None:
        bench.viewer.add_image(values, contrast_limits=(0, 1))
    bench.controller.segment.press()
    bench.wait()
    [told] = bench.messages()
    for word in words:
        assert word in told
    assert not _results(bench)
    assert bench.controller.job.phase is Phase.READY
