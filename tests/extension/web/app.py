"""The segmentation app of trame-slicer with the extension's controller behind four more buttons.

Run by a Python that has trame-slicer: ``python app.py PORT``. It shows a real Slicer scene and segment
editor in a web page; segmenting, corrections and fine-tuning are the extension's, in a real worker process.
Environment: XLSTM_UNET_WORKER_PYTHON (interpreter of the worker), MODEL, STEPS (of a fine-tuning).
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import slicer
from trame.widgets import html
from trame.widgets.vuetify3 import VBtn
from trame_slicer.app.segmentation_app import SegmentationApp

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "slicer_extension" / "XLSTMUNet"))

from XLSTMUNetLib.controller import Controller  # noqa: E402
from XLSTMUNetLib.segmenting import Request  # noqa: E402
from XLSTMUNetLib.words import comparison, counts_text  # noqa: E402
from XLSTMUNetLib.workplace import Kind, Workplace  # noqa: E402

from xlstm_unet.errors import XLSTMUNetError  # noqa: E402
from xlstm_unet.worker.client import WorkerClient  # noqa: E402


class EventLoopTimer:
    """Calls something again and again on the server's event loop."""

    def __init__(self, call) -> None:
        self._call, self._task = call, None

    def start(self) -> None:
        """Begin, if it has not begun."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0.03)
            self._call()


class App(SegmentationApp):
    """The app and the controller."""

    def __init__(self) -> None:
        super().__init__()
        slicer.mrmlScene = self._slicer_app.scene
        place = Workplace(Kind.PYTHON, python=os.environ["XLSTM_UNET_WORKER_PYTHON"])
        client = WorkerClient(place.command(""), place.environment({}, dict(os.environ)))
        self.controller = Controller(client, self._tell)
        self.controller.background.timer = EventLoopTimer(self.controller.background.drain)
        self.controller.state.on_change = self._show
        self.volume = self.segmentation = None
        self.told = ""
        self.server.state.xlstm = "no volume"
        self._logic._load_files_logic.volume_loaded.connect(self._loaded)
        with self._ui.layout.appbar:
            for name, click in (
                ("Segment", self._segment),
                ("Count", self._count),
                ("Fine-tune", self._tune),
                ("Keep", self._keep),
            ):
                VBtn(name, click=click, variant="tonal", classes="mr-2")
            html.Span("{{ xlstm }}", classes="mr-4 xlstm", style="max-width: 700px; font-size: 12px;")
        self._ui.layout.flush_content()

    def _loaded(self, volume) -> None:
        self.volume, self.segmentation = volume, None
        self.controller.start()

    def _model(self):
        wanted = os.environ["MODEL"]
        own = [model for model in self.controller.state.models if model.origin == "own"]
        tuned = [model for model in own if model.name == f"{wanted}-tuned"]
        return tuned[0] if tuned else self.controller.state.model(wanted)

    def _segment(self) -> None:
        request = Request(self.volume, self._model(), self.segmentation, device="cpu")
        self._try(lambda: self.controller.segment(request, self._segmented))

    def _segmented(self, segmentation) -> None:
        self.segmentation = segmentation
        editor = self._slicer_app.segmentation_editor
        with self.server.state:
            editor.deactivate_effect()
            editor.set_active_segmentation(segmentation, self.volume)

    def _count(self) -> None:
        self.controller.tuning.save(self.segmentation, self.volume)

    def _tune(self) -> None:
        steps = int(os.environ.get("STEPS", "6"))
        self._try(lambda: self.controller.tuning.tune(self.segmentation, self.volume, "cpu", steps=steps))

    def _keep(self) -> None:
        version = self.controller.state.tuning.version
        self.controller.tuning.keep(version["version"], force=True)

    def _try(self, call) -> None:
        try:
            call()
        except XLSTMUNetError as error:
            self._tell(error)

    def _tell(self, error) -> None:
        self.told = str(error)
        self._show()

    def _show(self) -> None:
        state = self.controller.state
        version = state.tuning.version if state.tuning is not None else None
        parts = (
            f"{state.phase.value} | {state.status}",
            counts_text(state.counts),
            comparison(version),
            f"models: {', '.join(model.name for model in state.models)}",
            self.told and f"ERROR {self.told}",
        )
        with self.server.state:
            self.server.state.xlstm = " | ".join(part for part in parts if part)


if __name__ == "__main__":
    App().server.start(port=int(sys.argv[1]), open_browser=False, show_connection_info=False)
