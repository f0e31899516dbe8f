"""Everything behind the panel, free of Qt: the worker, the runs, and the state that the panel shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.worker.client import WorkerClient
from xlstm_unet.worker.protocol import Reply
from XLSTMUNetLib.background import Background
from XLSTMUNetLib.history import Predictions
from XLSTMUNetLib.segmenting import Request, Segmenting
from XLSTMUNetLib.state import ModelInfo, Phase, State
from XLSTMUNetLib.tuning import TuningPart
from XLSTMUNetLib.worker import Backend

Tell = Callable[[XLSTMUNetError], None]


class Controller:
    """The module, without its widget; everything is called on the application's thread.

    Parameters
    ----------
    client
        The worker.
    tell
        Shows an error to the user.
    """

    def __init__(self, client: WorkerClient, tell: Tell) -> None:
        self.background = Background()
        self.state = State()
        self.backend = Backend(client, self.background)
        self.predictions = Predictions()
        self.tuning = TuningPart(self)
        self.tell = tell
        self._run: Segmenting | None = None

    def start(self) -> None:
        """Start the worker and ask what it has; returns at once."""
        self.state.change(phase=Phase.STARTING, status="Starting the worker...")
        self.backend.call("hello", {}, done=self._started, failed=self._broken)

    def refresh_models(self) -> None:
        """Ask for the models and versions again."""
        self.backend.call("list_models", {}, done=self._got_models, failed=self.tell)
        self.tuning.refresh_versions()

    def segment(self, request: Request, done: Callable[[Any], None] = lambda segmentation: None) -> None:
        """Start to segment; returns at once.

        Parameters
        ----------
        request
            What to segment, and how.
        done
            Called with the segmentation once it is written.

        Raises
        ------
        RegionNeededError
            If the model needs a region; nothing has begun.
        XLSTMUNetError
            If the request cannot be done; nothing has begun.
        """
        if self.state.busy:
            return

        def finished(segmentation: Any, text: str) -> None:
            self.end(text)
            done(segmentation)

        run = Segmenting(
            request,
            self.backend,
            self.predictions,
            report=self.report,
            done=finished,
            failed=self.failed,
        )
        self._run = run
        self.state.change(phase=Phase.SEGMENTING, progress=0.0, status="Segmenting...")
        run.start()

    def cancel(self) -> None:
        """End what runs within about a second; it leaves nothing."""
        if not self.state.busy:
            return
        self.state.change(phase=Phase.CANCELLING, status="Cancelling...")
        if self._run is not None:
            self._run.cancel()
        self.tuning.cancel()

    def scene_closed(self) -> None:
        """Forget the nodes of a scene that is gone, and end what runs on them."""
        self.cancel()
        self.predictions.forget()
        self.state.change(counts={}, unknown=())

    def report(self, part: float, text: str) -> None:
        """Show how far the work is."""
        if self.state.busy and self.state.phase is not Phase.CANCELLING:
            self.state.change(progress=min(max(part, 0.0), 1.0), status=text)

    def end(self, text: str) -> None:
        """Show that the work has ended."""
        self._run = None
        self.state.change(phase=Phase.READY, progress=0.0, status=text)

    def failed(self, error: XLSTMUNetError) -> None:
        """Show that the work has failed or was cancelled."""
        cancelled = isinstance(error, CancelledError) or self.state.phase is Phase.CANCELLING
        self.end("Cancelled." if cancelled else "Failed.")
        if not cancelled:
            self.tell(error)

    def close(self) -> None:
        """End the worker."""
        self.backend.client.close()

    def _started(self, reply: Reply) -> None:
        devices = [("auto", "Automatic")]
        devices += [(entry["name"], entry["description"]) for entry in reply.values["devices"]]
        self.state.devices = tuple(devices)
        self.state.phase = Phase.READY
        self.state.status = "Ready."
        self._got_models(reply)
        self.tuning.refresh_versions()

    def _got_models(self, reply: Reply) -> None:
        self.state.change(models=tuple(ModelInfo.from_summary(entry) for entry in reply.values["models"]))

    def _broken(self, error: XLSTMUNetError) -> None:
        self.state.change(phase=Phase.BROKEN, status="The worker could not be started: see Set-up.")
        self.tell(error)
