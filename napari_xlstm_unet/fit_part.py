"""Whether the chosen model fits the chosen image, said before Segment is pressed."""

from __future__ import annotations

from napari_xlstm_unet.backend import Backend
from napari_xlstm_unet.background import Background, Debounce
from napari_xlstm_unet.image_part import ImagePart
from napari_xlstm_unet.state import Finding, ModelState
from xlstm_unet.errors import XLSTMUNetError

LOOK_SECONDS = 0.2

_FIELDS = (
    "layer",
    "axes",
    "channel",
    "channel_choices",
    "level",
    "region",
    "box",
    "auto_diameter",
    "diameter",
)


class FitPart:
    """Asks the worker whenever image, region or model change.

    Parameters
    ----------
    backend, background
        The worker, and threads to wait for it on.
    model, image
        What is chosen.
    """

    def __init__(
        self, backend: Backend, background: Background, *, model: ModelState, image: ImagePart
    ) -> None:
        self._backend = backend
        self._background = background
        self._model = model
        self._image = image
        self._number = 0
        self._look_soon = Debounce(background, self._look)
        signals = [getattr(image.state.events, name) for name in _FIELDS]
        for signal in (model.events.spec, *signals):
            signal.connect(self._changed)

    def _changed(self, value: object = None) -> None:
        self._look_soon.poke(LOOK_SECONDS)

    def _look(self) -> None:
        self._number += 1
        number, model = self._number, self._model.name
        if self._model.spec is None or not self._image.state.layer:
            self._show(number, ())
            return
        try:
            task = self._image.task()
        except XLSTMUNetError as error:
            self._show(number, (Finding("stop", error.message, error.hint),))
            return
        self._background.run(
            lambda: self._backend.check_fit(task, model),
            lambda findings: self._show(number, findings),
            lambda error: self._show(number, ()),
            name="xlstm-unet-fit",
        )

    def _show(self, number: int, findings: tuple[Finding, ...]) -> None:
        if number == self._number:
            self._image.state.findings = findings
