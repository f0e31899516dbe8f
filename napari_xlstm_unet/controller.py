"""Everything behind the dock, free of Qt: its parts, wired together."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from napari_xlstm_unet.adjust_part import AdjustPart
from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.background import Background, Post
from napari_xlstm_unet.batch_part import BatchPart
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.corrections import Draft
from napari_xlstm_unet.finetune_part import FinetunePart
from napari_xlstm_unet.fit_part import FitPart
from napari_xlstm_unet.hub_part import HubPart
from napari_xlstm_unet.image_part import ImagePart
from napari_xlstm_unet.learning import Learning
from napari_xlstm_unet.measure_part import MeasurePart
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.new_model_part import NewModelPart
from napari_xlstm_unet.notify import tell_error
from napari_xlstm_unet.restore_part import RestorePart
from napari_xlstm_unet.results import Results, warm_up
from napari_xlstm_unet.segment_part import SegmentPart
from napari_xlstm_unet.settings import read_settings, write_settings
from napari_xlstm_unet.state import JobState
from napari_xlstm_unet.versions_part import VersionsPart
from xlstm_unet.errors import ImageError, XLSTMUNetError
from xlstm_unet.worker import WorkerClient

if TYPE_CHECKING:
    from napari.components import ViewerModel


_log = logging.getLogger(__name__)


class Controller:
    """The plugin in one viewer.

    Parameters
    ----------
    viewer
        The viewer, or a `ViewerModel` without a window.
    post
        Brings a call to the window's thread.
    client
        The worker; by default as the settings say.
    """

    def __init__(self, viewer: ViewerModel, post: Post, client: WorkerClient | None = None) -> None:
        settings = read_settings()
        self.client = client if client is not None else WorkerClient(settings.argv)
        self.background = Background(post)
        self.results = Results(viewer)
        self.job = JobState()
        backend, learning = Backend(self.client), Learning(self.client)
        self.model = ModelPart(backend, self.background, self.job, device=settings.device)
        self.hub = HubPart(self.client, self.background, self.model)
        self.image = ImagePart(viewer, self.model.state)
        self.correct = CorrectPart(viewer, learning, self.background, self.results)
        self.adjust = AdjustPart(
            viewer, backend, self.background, results=self.results, correct=self.correct, job=self.job
        )
        self.segment = SegmentPart(
            backend,
            self.background,
            self.job,
            model=self.model,
            image=self.image,
            adjust=self.adjust,
            correct=self.correct,
            results=self.results,
            limit_gb=settings.limit_gb,
        )
        self.versions = VersionsPart(learning, self.background, model=self.model, correct=self.correct)
        self.finetune = FinetunePart(
            viewer,
            learning,
            self.background,
            model=self.model,
            segment=self.segment,
            correct=self.correct,
            versions=self.versions,
        )
        self.restore = RestorePart(
            self.background,
            model=self.model.state,
            image=self.image,
            adjust=self.adjust,
            correct=self.correct,
            results=self.results,
        )
        self.new_model = NewModelPart(learning, self.background, model=self.model, correct=self.correct)
        self.fit = FitPart(backend, self.background, model=self.model.state, image=self.image)
        self.batch = BatchPart(
            self.background, model=self.model, segment=self.segment, image=self.image.state
        )
        self.measure = MeasurePart(self.background)
        self.correct.state.events.total.connect(self.versions.refresh)
        self.model.state.events.device.connect(_remember_device)
        self.model.start()
        self.background.run(warm_up, lambda _: None, tell_error, name="xlstm-unet-warm-up")

    def measure_result(self) -> None:
        """Measure the result layer that the sliders belong to, as the user has left it."""
        result = self.adjust.result
        if result is None:
            tell_error(ImageError("There is no result to measure.", "Press Segment first."))
        else:
            self.measure.measure(result)

    def close(self) -> None:
        """Cancel everything, let go of the viewer, and end the worker; returns at once."""
        if self.background.closed:
            return
        self.background.close()
        self.hub.close()
        self.finetune.close()
        self.segment.close()
        self.adjust.close()
        self.image.close()
        left = self.correct.close()
        threading.Thread(target=self._end, args=[left], name="xlstm-unet-close").start()

    def _end(self, left: list[Draft]) -> None:
        """Store what is not stored yet, and end the worker."""
        try:
            if left:
                self.correct.surveyor.store(left)
        except (XLSTMUNetError, TimeoutError) as error:
            _log.warning("Corrections could not be saved: %s", error)
        finally:
            self.client.close()


def _remember_device(device: str) -> None:
    try:
        write_settings(replace(read_settings(), device=device))
    except XLSTMUNetError as error:
        tell_error(error)
