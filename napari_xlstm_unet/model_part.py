"""The part "Model": which models and devices there are, and which is chosen."""

from __future__ import annotations

from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.background import Background
from napari_xlstm_unet.notify import tell_error
from napari_xlstm_unet.state import AUTOMATIC, DeviceInfo, JobState, ModelInfo, ModelState, Phase
from xlstm_unet.errors import BundleError
from xlstm_unet.spec import ModelSpec


class ModelPart:
    """Starts the worker and keeps the list of models.

    Parameters
    ----------
    backend
        The worker.
    background
        For what takes time.
    job
        State of the running work.
    device
        Device to begin with.
    """

    def __init__(self, backend: Backend, background: Background, job: JobState, *, device: str) -> None:
        self.state = ModelState(device=device)
        self._backend = backend
        self._background = background
        self._job = job

    def start(self) -> None:
        """Start the worker and ask for its models; returns at once."""
        self._job.phase = Phase.STARTING
        self._job.status = "Starting the worker…"
        self._background.run(self._backend.start, self._started, self._not_started, name="xlstm-unet-start")

    def choose(self, name: str) -> None:
        """Choose a model; its description follows."""
        info = next((info for info in self.state.models if info.name == name), None)
        if info is not None and info.problem:
            tell_error(
                BundleError(f"The model '{name}' cannot be used: {info.problem}", "Choose another model.")
            )
            return
        self.state.name = name
        self.state.spec = None
        if name:
            self._background.run(
                lambda: self._backend.describe(name),
                lambda spec: self._described(name, spec),
                tell_error,
                name="xlstm-unet-describe",
            )

    def refresh(self, choose: str = "") -> None:
        """Ask for the models again, as some have come or gone, and perhaps choose one; returns at once."""

        def listed(found: tuple[tuple[ModelInfo, ...], tuple[DeviceInfo, ...]]) -> None:
            self._listed(found)
            if choose in [info.name for info in found[0]] and choose != self.state.name:
                self.choose(choose)

        self._background.run(self._backend.start, listed, tell_error, name="xlstm-unet-models")

    def choose_device(self, device: str) -> None:
        """Choose what the model runs on."""
        self.state.device = device

    def _started(self, found: tuple[tuple[ModelInfo, ...], tuple[DeviceInfo, ...]]) -> None:
        self._job.phase = Phase.READY
        self._job.status = ""
        self._listed(found)

    def _listed(self, found: tuple[tuple[ModelInfo, ...], tuple[DeviceInfo, ...]]) -> None:
        models, devices = found
        self.state.models = models
        self.state.devices = devices
        if self.state.device not in [device.name for device in devices]:
            self.state.device = AUTOMATIC.name
        names = [info.name for info in models if not info.problem]
        if self.state.name not in names:
            self.choose(names[0] if names else "")
        if not names:
            self._job.status = "No model found."

    def _described(self, name: str, spec: ModelSpec) -> None:
        if name == self.state.name:
            self.state.spec = spec

    def _not_started(self, error: Exception) -> None:
        self._job.phase = Phase.BROKEN
        self._job.status = "The worker did not start. Press the button to try again."
        tell_error(error)
