"""The part "Correct": follows what the user changes and accepts, counts it, and keeps it safe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes

from napari_xlstm_unet.background import Background, Debounce
from napari_xlstm_unet.corrections import Draft, Survey, Surveyor
from napari_xlstm_unet.learn_state import CorrectState, Counts, SavedCorrections
from napari_xlstm_unet.learning import Learning
from napari_xlstm_unet.notify import tell_error
from napari_xlstm_unet.overlay import Overlay
from napari_xlstm_unet.regions import Region, region_window
from napari_xlstm_unet.results import Kept, Outcome, Result, Results
from napari_xlstm_unet.stored import Store
from xlstm_unet.errors import CancelledError, ImageError, XLSTMUNetError
from xlstm_unet.spec import ModelSpec

if TYPE_CHECKING:
    from napari.components import ViewerModel

COUNT_SECONDS = 0.4
"""Pause in painting after which changes are counted."""

SAVE_SECONDS = 3.0
"""Pause after which they are stored; longer for images that take long."""

_EVENTS = ("paint", "labels_update", "set_data", "data")
"""Signs that a layer may have changed; undo gives none of its own, so every redraw is one."""


class CorrectPart:
    """Counts and stores the corrections of the selected result, on a thread, some time after each change.

    Parameters
    ----------
    viewer
        The viewer.
    learning, background
        The worker, and threads to wait for it on.
    results
        The result layers.
    """

    def __init__(
        self, viewer: ViewerModel, learning: Learning, background: Background, results: Results
    ) -> None:
        self.state = CorrectState()
        self.surveyor = Surveyor(learning)
        self.store = Store(learning)
        self._viewer = viewer
        self._learning = learning
        self._background = background
        self._results = results
        self._result: Result | None = None
        self._overlay = Overlay(viewer)
        self._survey: Survey | None = None
        self._running = False
        self._again = False
        self._save_due = 0.0
        self._saving_took = 0.0
        self._count_soon = Debounce(background, self.count)
        self._save_soon = Debounce(background, self.save)
        self.state.events.overlay.connect(self._show_overlay)
        viewer.layers.events.removed.connect(self._removed)

    @property
    def result(self) -> Result | None:
        """The result whose corrections are counted."""
        return self._result

    def close(self) -> list[Draft]:
        """Let go of the viewer; return what is not yet stored."""
        self._viewer.layers.events.removed.disconnect(self._removed)
        left = self._drafts() if self.state.unsaved else []
        self._follow(None)
        self._overlay.hide()
        return left

    def attach(self, result: Result | None) -> None:
        """Follow ``result``; what was changed in the one before is stored."""
        if result is self._result:
            self.touched()
            return
        if self.state.unsaved:
            self.save()
        self._follow(result)
        self._survey = None
        state = self.state
        state.available = result is not None
        state.layer = result.layer.name if result is not None else ""
        state.model = result.outcome.model if result is not None else ""
        state.counts, state.beyond, state.unsaved = Counts(), (), False
        self._overlay.hide()
        self.touched()

    def touched(self, event: object = None) -> None:
        """Something may have changed: count it when the user pauses."""
        if self._result is not None:
            self.state.pending = True
            self._count_soon.poke(COUNT_SECONDS)

    def accept(self, region: Region, box: str = "") -> None:
        """Mark a region of the selected result as right, as it stands."""
        result = self._result
        if result is None:
            return
        try:
            window = self._window(result, region, box)
        except XLSTMUNetError as error:
            tell_error(error)
            return
        if result.accepted is None:
            result.accepted = np.zeros(result.outcome.snapshot.shape, bool)
        result.accepted[window] = True
        self.touched()

    def withdraw(self) -> None:
        """Take back everything that was accepted in the selected result."""
        if self._result is not None and self._result.accepted is not None:
            self._result.accepted[...] = False
            self.touched()

    def count(self) -> None:
        """Count now; returns at once."""
        self._work(store=False)

    def save(self) -> None:
        """Count and store now; returns at once."""
        self._work(store=True)

    def flush(self) -> None:
        """Store everything that is not stored yet; waits, on any thread but the window's.

        Raises
        ------
        XLSTMUNetError
            If it cannot be stored.
        """
        drafts = self._drafts()
        if drafts:
            self.surveyor.store(drafts)

    def belongs_to(self, result: Result, model: str, spec: ModelSpec) -> None:
        """Let another model learn from a result."""
        self.surveyor.hand_over(result, model, spec)
        if result is self._result:
            self.state.model = model
            self.touched()

    def forgotten(self, entries: Sequence[SavedCorrections]) -> None:
        """Let go of corrections that were removed from the store, in every layer that still shows them."""
        for result in self._results.all():
            names = [entry.image for entry in entries if entry.model == result.outcome.model]
            if self.surveyor.rebase(result, names) and result is self._result:
                self.state.unsaved = False
                self.touched()
        self.refresh_total()

    def kept(self, outcome: Outcome) -> Kept | None:
        """Return the user's work on these pixels, from the newest result or what was stored; waits."""
        result = self._results.newest(outcome)
        if result is not None:
            return self.kept_of(result)
        stored = self.store.find(outcome.task, outcome.spec, outcome.model)
        return stored.kept if stored is not None else None

    def kept_of(self, result: Result) -> Kept | None:
        """Return the user's work in a result; waits."""
        draft = Draft.of(result)
        return self.surveyor.kept(draft) if draft.usable else None

    def refresh_total(self) -> None:
        """Ask how much there is to learn from in all; returns at once."""
        model = self.state.model
        if model:
            self._background.run(
                lambda: self._learning.list_corrections(model),
                lambda entries: self._show_total(model, entries),
                _quiet,
                name="xlstm-unet-corrections",
            )

    def _work(self, *, store: bool) -> None:
        """Count, and perhaps store, one after another."""
        drafts = self._drafts()
        if not drafts:
            return
        if self._running:
            self._again = True
            return
        self._running, self._again = True, False
        result, started = self._result, time.monotonic()
        work = (lambda: self.surveyor.store(drafts)) if store else (lambda: self.surveyor.survey(drafts[-1]))
        self._background.run(
            work,
            lambda survey: self._counted(result, survey, started, stored=store),
            self._failed,
            name="xlstm-unet-count",
        )

    def _counted(self, result: Result | None, survey: Survey, started: float, *, stored: bool) -> None:
        self._running = False
        if result is self._result:
            changed = self._survey is None or not np.array_equal(survey.states, self._survey.states)
            self._survey = survey
            state = self.state
            state.counts, state.beyond = survey.counts, survey.beyond
            state.pending = self._again
            if changed:
                self._show_overlay()
            if stored:
                self._saving_took = time.monotonic() - started
                state.unsaved = self._again
                self.refresh_total()
            elif survey.unstored:
                state.unsaved = True
                self._save_soon.poke(max(SAVE_SECONDS, 10 * self._saving_took))
        if self._again:
            self.count()

    def _failed(self, error: Exception) -> None:
        self._running = False
        self.state.pending = False
        if not isinstance(error, CancelledError):
            tell_error(error)

    def _drafts(self) -> list[Draft]:
        """Return the drafts of all results of the followed image, the followed one last."""
        if self._result is None:
            return []
        others = [
            Draft.of(other)
            for other in self._results.same_image(self._result.outcome)
            if other is not self._result
        ]
        mine = Draft.of(self._result)
        return [draft for draft in (*others, mine) if draft.usable] if mine.usable else []

    def _window(self, result: Result, region: Region, box: str) -> tuple[slice, ...]:
        layer, task = result.layer, result.outcome.task
        shapes = self._shapes(box)
        if region is Region.BOX and shapes is None:
            raise ImageError(
                "There is no Shapes layer with a box.",
                "Add one (the button with the triangle above the layer list) and draw a rectangle.",
            )
        return region_window(
            region, layer, task.label_axes, self._viewer.dims, dimension=2, box=shapes, deep=False
        )

    def _shapes(self, name: str) -> Shapes | None:
        layers = [layer for layer in self._viewer.layers if isinstance(layer, Shapes)]
        return next((layer for layer in layers if layer.name == name), layers[-1] if layers else None)

    def _follow(self, result: Result | None) -> None:
        for before, layer in ((True, self._result), (False, result)):
            if layer is not None:
                for name in _EVENTS:
                    emitter = getattr(layer.layer.events, name)
                    emitter.disconnect(self.touched) if before else emitter.connect(self.touched)
        self._result = result

    def _show_overlay(self) -> None:
        if self.state.overlay and self._result is not None and self._survey is not None:
            self._overlay.show(self._result, self._survey.states)
        else:
            self._overlay.hide()

    def _show_total(self, model: str, entries: tuple[Any, ...]) -> None:
        if model == self.state.model:
            usable = [entry for entry in entries if not entry.problem]
            self.state.images = len(usable)
            self.state.total = Counts.sum(entry.counts for entry in usable)

    def _removed(self, event: Any) -> None:
        self._overlay.removed(event.value)
        if self._result is not None and event.value is self._result.layer:
            self.attach(None)


def _quiet(error: Exception) -> None:
    """A number that is not shown is no reason to interrupt."""
    if not isinstance(error, XLSTMUNetError):
        tell_error(error)
