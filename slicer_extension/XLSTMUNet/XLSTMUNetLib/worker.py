"""Typed calls to the worker process; the only place that knows its methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xlstm_unet.errors import XLSTMUNetError
from xlstm_unet.progress import Progress
from xlstm_unet.worker.client import WorkerClient
from xlstm_unet.worker.job import Job
from xlstm_unet.worker.protocol import Reply
from XLSTMUNetLib.background import Background
from XLSTMUNetLib.mrml import VolumeImage

Array = np.ndarray[Any, Any]
OnDone = Callable[[Reply], None]
OnError = Callable[[XLSTMUNetError], None]
OnProgress = Callable[[Progress], None]


class Backend:
    """The worker, seen from the application's thread.

    Every call returns at once; every answer comes through `Background`.

    Parameters
    ----------
    client
        The worker; it starts with the first call, and again after a crash.
    background
        Brings answers to the application's thread.
    """

    def __init__(self, client: WorkerClient, background: Background) -> None:
        self.client = client
        self._background = background

    def call(
        self,
        method: str,
        params: Mapping[str, Any],
        arrays: Mapping[str, Array] | None = None,
        *,
        done: OnDone,
        failed: OnError,
        progress: OnProgress | None = None,
    ) -> Job:
        """Send a request; ``done`` or ``failed`` is called once, on the application's thread."""
        self._background.expect()

        def report(step: Progress) -> None:
            if progress is not None:
                self._background.post(lambda: progress(step))

        def deliver(job: Job) -> None:
            self._background.post(lambda: self._deliver(job, done, failed))

        job = self.client.request(method, params, arrays or {}, report)
        job.add_done_callback(deliver)
        return job

    def segment(
        self,
        image: VolumeImage,
        model: str,
        device: str,
        *,
        region: list[tuple[int, int]] | None,
        keep: Mapping[str, Array],
        **callbacks: Any,
    ) -> Job:
        """Ask for the labels of a volume.

        Parameters
        ----------
        image
            The volume.
        model, device
            Names, as the worker calls them.
        region
            Start and stop along K, J and I, or None for all.
        keep
            Nothing, or ``keep_labels`` and ``keep_states``: the user's work that stays as it is.
        **callbacks
            As for `call`.
        """
        params = {"model": model, "device": device, "region": region, **image.params()}
        return self.call("segment", params, {"image": image.array, **keep}, **callbacks)

    def save_corrections(
        self, image: VolumeImage, model: str, arrays: Mapping[str, Array], **callbacks: Any
    ) -> Job:
        """Store the corrections of a volume: arrays ``prediction``, ``labels`` and maybe ``accepted``."""
        params = {"model": model, **image.params()}
        return self.call("save_corrections", params, {"image": image.array, **arrays}, **callbacks)

    def _deliver(self, job: Job, done: OnDone, failed: OnError) -> None:
        self._background.release()
        if job.error is not None:
            failed(job.error)
        else:
            done(job.result())
