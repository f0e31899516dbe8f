"""Finding what an earlier session left of an image: corrections that were stored before it ended or died."""

from __future__ import annotations

from datetime import datetime

from napari_xlstm_unet.adjust_part import AdjustPart
from napari_xlstm_unet.background import Background, Debounce
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.image_part import ImagePart
from napari_xlstm_unet.regions import Region
from napari_xlstm_unet.results import Results
from napari_xlstm_unet.state import ModelState
from napari_xlstm_unet.stored import Found
from xlstm_unet.errors import XLSTMUNetError

LOOK_SECONDS = 0.3


class RestorePart:
    """Looks into the store whenever another image or model is chosen, and puts what it finds into a layer.

    Parameters
    ----------
    background
        Threads.
    model
        The chosen model.
    image, adjust, correct
        The other parts.
    results
        Where results are shown.
    """

    def __init__(
        self,
        background: Background,
        *,
        model: ModelState,
        image: ImagePart,
        adjust: AdjustPart,
        correct: CorrectPart,
        results: Results,
    ) -> None:
        self._background = background
        self._model = model
        self._image = image
        self._adjust = adjust
        self._correct = correct
        self._results = results
        self._found: Found | None = None
        self._look_soon = Debounce(background, self._look)
        for signal in (model.events.spec, image.state.events.layer, image.state.events.axes):
            signal.connect(self._changed)

    def restore(self) -> None:
        """Show what was found in a new layer."""
        found = self._found
        self._offer(None)
        if found is None:
            return
        result = self._results.add(found.outcome())
        result.accepted = found.accepted.copy()
        self._adjust.attach(result)

    def _changed(self, value: object = None) -> None:
        self._offer(None)
        self._look_soon.poke(LOOK_SECONDS)

    def _look(self) -> None:
        try:
            task = self._image.task(Region.ALL)
        except XLSTMUNetError:  # no image, no model, or they do not fit
            return
        spec, model = self._model.spec, self._model.name
        if spec is None or self._results.of_image(task.image_id):
            return
        self._background.run(
            lambda: self._correct.store.find(task, spec, model),
            self._show,
            _unanswered,
            name="xlstm-unet-restore",
        )

    def _show(self, found: Found | None) -> None:
        task = found.task if found is not None else None
        if task is not None and not self._results.of_image(task.image_id):
            self._offer(found)

    def _offer(self, found: Found | None) -> None:
        self._found = found
        text = ""
        if found is not None:
            when = datetime.fromisoformat(found.saved).astimezone().strftime("%d %b, %H:%M")
            text = f"Corrections of this image, saved {when}: {found.counts}."
        self._correct.state.found = text


def _unanswered(error: Exception) -> None:
    """An offer that cannot be made is no reason to interrupt; Segment says what is wrong."""
