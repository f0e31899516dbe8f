"""Times the Slicer module: opening it, clicks to segmentations, blocks of the event loop, orphans.

    OMP_NUM_THREADS=2 .venv-slicer/bin/python tests/benchmarks/bench_slicer.py [--kills 20]

The panel runs in real Qt with the stand-ins of ``tests/extension``, the scene and the worker are real.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

TESTS = Path(__file__).resolve().parents[1] / "extension"
sys.path[:0] = [
    str(TESTS),
    str(TESTS / "stand_ins"),
    str(TESTS.parents[1] / "slicer_extension" / "XLSTMUNet"),
]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def open_panel(home: Path):
    """Return application, widget and scene."""
    import slicer
    import slicer.util
    from conftest import MODULE, WORKER_PYTHON, worker_environment
    from PyQt6 import QtWidgets
    from slicer_scene import make_scene

    wired = make_scene()
    slicer.__path__.append(str(TESTS / "stand_ins" / "slicer"))
    application = QtWidgets.QApplication([])
    import mrml_widgets
    import qt
    from test_panel import Settings

    slicer.qMRMLSegmentEditorWidget = lambda: qt.Like(mrml_widgets.qMRMLSegmentEditorWidget())
    started = worker_environment(
        XLSTM_UNET_HOME=str(home), OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "2")
    )
    settings = Settings({"XLSTMUNet/Worker": "python", "XLSTMUNet/Python": WORKER_PYTHON})
    slicer.app = SimpleNamespace(
        connect=lambda signal, slot: None,
        testingEnabled=lambda: False,
        userSettings=lambda: settings,
        slicerUserSettingsFilePath=str(home / "Slicer.ini"),
        slicerHome=str(home),
        startupEnvironment=lambda: SimpleNamespace(keys=lambda: list(started), value=started.get),
    )
    slicer.util.errorDisplay = lambda text, **_: sys.exit(text)
    import XLSTMUNet

    widget = XLSTMUNet.XLSTMUNetWidget(SimpleNamespace(isEntered=True))
    widget.folder = str(MODULE)
    volume = wired.volumes.AddArchetypeVolume(XLSTMUNet.samplePath(), "MRHippocampus", 0)
    return application, widget, volume


def run_until(application, condition) -> float:
    """Run Qt's event loop until a condition holds; return the longest block in seconds."""
    longest = 0.0
    while not condition():
        before = time.perf_counter()
        application.processEvents()
        longest = max(longest, time.perf_counter() - before)
        time.sleep(0.001)
    return longest


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hippocampus-mri")
    parser.add_argument("--kills", type=int, default=0)
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp())
    application, widget, volume = open_panel(home)
    results: dict[str, object] = {}

    begun = time.perf_counter()
    widget.setup()
    results["open_block_s"] = time.perf_counter() - begun
    state = widget.logic.controller.state
    blocks = [run_until(application, lambda: state.phase == "ready")]
    results["worker_ready_s"] = time.perf_counter() - begun
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    widget._parameterNode.model = arguments.model
    clicks = []
    for _ in range(4):
        clicked = time.perf_counter()
        widget.ui.segmentButton.click()
        click = time.perf_counter() - clicked
        blocks.append(max(click, run_until(application, lambda: not state.busy)))
        clicks.append(time.perf_counter() - clicked)
    results["cold_from_opening_s"] = results["worker_ready_s"] + clicks[0]
    results["first_click_s"], results["warm_clicks_s"] = clicks[0], clicks[1:]
    results["longest_block_s"] = max(blocks)
    results["status"] = widget.ui.statusLabel.text
    widget.cleanup()
    if arguments.kills:
        from test_worker_faults import kill_front_after

        moments = random.Random(0)
        alive = [kill_front_after(moments.uniform(0, 12), home, "nuclei") for _ in range(arguments.kills)]
        results["worker_outlived_its_front_s"] = {"max": max(alive), "all": alive}
    print(json.dumps(results, indent=1, default=lambda value: round(value, 4)))


if __name__ == "__main__":
    main()
