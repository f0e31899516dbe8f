"""Times the napari plugin in a real window: opening, click to labels, longest block of the window.

With --finetune also while it fine-tunes and the user goes on painting, and how soon that is cancelled.

xvfb-run -a -s "-screen 0 1400x900x24" python tests/benchmarks/bench_napari.py --model nuclei
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import napari
import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from napari_xlstm_unet.dock import Dock
from napari_xlstm_unet.learn_state import Training
from napari_xlstm_unet.state import Phase
from xlstm_unet.images import read_image, read_labels
from xlstm_unet.samples import SAMPLES


class Heart:
    """Beats every millisecond while the window lives; a gap between two beats is a block."""

    def __init__(self) -> None:
        self.gaps: list[float] = []
        self.busy: list[float] = []
        """CPU time of the window's thread within each gap: what is left of it on an idle machine."""
        self._last = self._last_cpu = 0.0
        self._timer = QTimer()
        self._timer.setInterval(1)
        self._timer.timeout.connect(self._beat)

    def start(self) -> None:
        """Begin to listen."""
        self.gaps.clear()
        self.busy.clear()
        self._last, self._last_cpu = time.perf_counter(), time.thread_time()
        self._timer.start()

    def stop(self) -> dict[str, float]:
        """Stop and return the gaps in milliseconds."""
        self._timer.stop()
        gaps = 1000 * np.array(self.gaps)
        return {
            "p50_ms": round(float(np.percentile(gaps, 50)), 1),
            "p99_ms": round(float(np.percentile(gaps, 99)), 1),
            "max_ms": round(float(gaps.max()), 1),
            "five_longest_ms": [round(float(gap), 1) for gap in np.sort(gaps)[-5:]],
            "five_longest_cpu_ms": [round(1000 * busy, 1) for busy in sorted(self.busy)[-5:]],
            "seconds": round(float(gaps.sum()) / 1000, 1),
        }

    def _beat(self) -> None:
        now, cpu = time.perf_counter(), time.thread_time()
        self.gaps.append(now - self._last)
        self.busy.append(cpu - self._last_cpu)
        self._last, self._last_cpu = now, cpu


def until(condition: Callable[[], object], seconds: float = 900) -> float:
    """Let the window live until ``condition`` holds; return how long it took."""
    start = time.perf_counter()
    while not condition():
        QApplication.processEvents()
        time.sleep(0.0005)
        assert time.perf_counter() - start < seconds, "it did not happen in time"
    return time.perf_counter() - start


def rest(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.perf_counter() + seconds
    until(lambda: time.perf_counter() > end)


def finetune(viewer: napari.Viewer, dock: Dock) -> dict[str, object]:
    """Correct the result, fine-tune for 30 s while painting, and cancel another one."""
    controller = dock.controller
    correct, tuning = controller.correct.state, controller.finetune.state
    labels = controller.adjust.result.layer
    truth = np.tile(np.asarray(read_labels(SAMPLES[0].labels)), (2, 2))
    labels.data[:256, :256] = np.where(truth[:256, :256] > 0, truth[:256, :256] + 1000, 0)
    labels.refresh()
    until(lambda: correct.counts.any and not correct.pending and not correct.unsaved)
    found: dict[str, object] = {"corrected": correct.counts.corrected}
    heart = Heart()
    heart.start()
    dock.finetune.go.click()
    painting = time.perf_counter()
    row = 300
    while tuning.phase is Training.RUNNING:
        rest(0.1)
        row = 300 + (row - 299) % 200
        labels.paint((row, 300 + (row * 7) % 200), 2000 + row)
        assert time.perf_counter() - painting < 300
    found["event_loop_while_training"] = heart.stop()
    found["seconds"] = round(time.perf_counter() - painting, 1)
    found["status"], found["verdict"] = tuning.status, tuning.pending and tuning.pending.message
    heart.start()
    until(lambda: tuning.can_compare)
    found["before_after_s"] = round(time.perf_counter() - painting, 1)
    found["event_loop_before_after"] = heart.stop()
    dock.finetune.discard.click()
    until(lambda: tuning.phase is Training.IDLE and controller.job.phase is Phase.READY)
    cancels = []
    for seconds in (0.5, 3.0, 8.0):
        dock.finetune.go.click()
        rest(seconds)
        dock.finetune.cancel.click()
        cancels.append(round(until(lambda: tuning.phase is Training.IDLE), 2))
    found["cancel_s"] = cancels
    return found


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--size", type=int, default=4096, help="side of the large image")
    parser.add_argument("--finetune", action="store_true", help="also fine-tune, for 30 seconds")
    parser.add_argument("--diameter", type=float, help="object diameter; estimated without it")
    options = parser.parse_args()
    cells = np.asarray(read_image(SAMPLES[0].image).array)
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    found: dict[str, object] = {"model": options.model, "napari": napari.__version__}

    start = time.perf_counter()
    _, dock = viewer.window.add_plugin_dock_widget("xlstm-unet")
    QApplication.processEvents()
    found["dock_open_s"] = round(time.perf_counter() - start, 2)
    job, model = dock.controller.job, dock.controller.model
    until(lambda: job.phase is Phase.READY)
    found["worker_ready_s"] = round(time.perf_counter() - start, 2)
    model.choose(options.model)
    until(lambda: model.state.spec is not None)
    if options.diameter:
        dock.controller.image.state.auto_diameter = False
        dock.controller.image.state.diameter = options.diameter

    def click() -> float:
        dock.segment.button.click()
        return round(until(lambda: job.phase is Phase.READY), 2)

    viewer.add_image(np.tile(cells, (2, 2)), name="sample")
    found["click_to_labels_512_cold_s"] = click()
    found["click_to_labels_512_warm_s"] = [click() for _ in range(3)]
    own = dock.adjust.threshold.value()
    dock.adjust.threshold.setValue(own - 0.1 if own > 0.5 else own + 0.1)
    adjust = dock.controller.adjust.state
    assert adjust.pending, "the slider does nothing"
    found["slider_to_labels_512_s"] = round(until(lambda: not adjust.pending), 3)
    if options.finetune:
        found["finetune"] = finetune(viewer, dock)

    repeat = options.size // len(cells)
    viewer.add_image(np.tile(cells, (repeat, repeat)), name="large")
    rest(1)
    heart = Heart()
    heart.start()
    found["click_to_labels_large_s"] = click()
    rest(0.5)
    found["event_loop_large"] = heart.stop()
    found["status"] = job.status
    print(json.dumps(found, indent=2))
    viewer.close()


main()
