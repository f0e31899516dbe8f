"""The window "Models": searching the Hub, looking at cards, fetching and removing models."""

from __future__ import annotations

from typing import Any

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.hub_state import Card, HubModel, HubPhase, HubState
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell, tell_error
from xlstm_unet.errors import CancelledError
from xlstm_unet.progress import Progress
from xlstm_unet.worker import Job, WorkerClient

ASK_BYTES = 100_000_000
"""Models larger than this are fetched only after the user has agreed to the size."""


class HubPart:
    """Asks the worker, which alone uses the network; nothing is fetched before the user asks for it.

    Parameters
    ----------
    client, background
        The worker, and threads to wait for it on.
    model
        The part "Model", whose list follows.
    """

    def __init__(self, client: WorkerClient, background: Background, model: ModelPart) -> None:
        self.state = HubState()
        self.model = model
        self._client = client
        self._background = background
        self._job: Job | None = None
        self._shown = 0

    def search(self, query: str) -> None:
        """Search the Hub; returns at once."""
        if self.state.phase is not HubPhase.IDLE:
            return
        self.state.phase, self.state.status = HubPhase.SEARCHING, "Searching…"
        self._job = self._client.request("search_models", {"query": query.strip()})
        self._wait(self._job, self._found, "xlstm-unet-search")

    def show(self, model: str) -> None:
        """Show the card of a model, here or on the Hub; returns at once."""
        self._shown += 1
        number = self._shown
        self.state.card = Card(model, "Reading…", "")

        def done(reply: dict[str, Any]) -> None:
            if number == self._shown:
                self.state.card = Card.of(reply)

        def failed(error: Exception) -> None:
            if number == self._shown:
                self.state.card = Card(model, str(error), "")

        job = self._client.request("show_model", {"model": model})
        self._background.run(lambda: job.result().values, done, failed, name="xlstm-unet-card")

    def fetch(self, model: str, size_bytes: int = 0) -> None:
        """Fetch a model from the Hub and choose it; returns at once.

        Parameters
        ----------
        model
            ``owner/name`` or ``owner/name@revision``.
        size_bytes
            The size that the user has agreed to.
        """
        state = self.state
        if state.phase is not HubPhase.IDLE:
            return
        state.phase, state.fetching, state.progress = HubPhase.FETCHING, model, 0.0
        state.status = f"Fetching {model}…"
        params = {"model": model, "max_bytes": max(size_bytes, ASK_BYTES)}
        self._job = self._client.request("get_model", params, on_progress=self._progress)
        self._wait(self._job, self._fetched, "xlstm-unet-fetch")

    def cancel(self) -> None:
        """Cancel the search or the download; returns at once."""
        if self._job is not None and self.state.phase in (HubPhase.SEARCHING, HubPhase.FETCHING):
            self.state.phase, self.state.status = HubPhase.CANCELLING, "Cancelling…"
            self._job.cancel()

    def remove(self, model: str) -> None:
        """Remove a model from the disk; returns at once."""
        job = self._client.request("remove_model", {"model": model})

        def done(reply: dict[str, Any]) -> None:
            tell(f"'{model}' removed; {reply['freed_bytes'] / 1e6:.1f} MB are free again.")
            self.state.card = None
            self.model.refresh()

        self._background.run(lambda: job.result().values, done, tell_error, name="xlstm-unet-remove")

    def close(self) -> None:
        """Cancel what is running."""
        if self._job is not None:
            self._job.cancel()

    def _wait(self, job: Job, done: Any, name: str) -> None:
        self._background.run(lambda: job.result().values, done, self._failed, name=name)

    def _progress(self, step: Progress) -> None:
        self._background.post(lambda: self._show_progress(step))

    def _show_progress(self, step: Progress) -> None:
        if self.state.phase is HubPhase.FETCHING and step.total:
            self.state.progress = step.done / step.total
            self.state.status = (
                f"Fetching {self.state.fetching}: {step.done / 1e6:.1f} of {step.total / 1e6:.1f} MB"
            )

    def _found(self, reply: dict[str, Any]) -> None:
        state = self.state
        state.results = tuple(HubModel.of(entry) for entry in reply["models"])
        count = len(state.results)
        self._end(f"{count} model{'s' * (count != 1)} found." if count else "Nothing found.")

    def _fetched(self, reply: dict[str, Any]) -> None:
        name, repo = reply["name"], self.state.fetching.partition("@")[0]
        self._end(f"{'Already here' if reply['already'] else 'Fetched'}: '{name}'.")
        self.state.results = tuple(
            HubModel(**{**vars(found), "installed": name}) if found.repo == repo else found
            for found in self.state.results
        )
        self.model.refresh(name)

    def _failed(self, error: Exception) -> None:
        if isinstance(error, CancelledError):
            self._end("Cancelled.")
        else:
            self._end("")
            tell_error(error)

    def _end(self, status: str) -> None:
        self._job = None
        self.state.progress, self.state.fetching = 0.0, ""
        self.state.status = status
        self.state.phase = HubPhase.IDLE
