"""Versions of the chosen model: which there are, going back, and forgetting what they learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.learn_state import SavedCorrections, Version, VersionsState
from napari_xlstm_unet.learning import Learning
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell, tell_error


class VersionsPart:
    """Follows the chosen model.

    Parameters
    ----------
    learning, background
        The worker, and threads to wait for it on.
    model
        The part "Model".
    correct
        The part "Correct": learns what was forgotten.
    """

    def __init__(
        self, learning: Learning, background: Background, *, model: ModelPart, correct: CorrectPart
    ) -> None:
        self.state = VersionsState()
        self._learning = learning
        self._background = background
        self._model = model
        self._correct = correct
        model.state.events.name.connect(self.refresh)

    def refresh(self, name: object = None) -> None:
        """Ask for the versions of the chosen model; returns at once."""
        model = self._model.state.name
        if model:
            self._do(lambda: None, lambda _: None, model)

    def use(self, number: int) -> None:
        """Make another version the model's current one; returns at once."""
        model = self.state.model
        if number != self.state.current:
            self._do(
                lambda: self._learning.use(model, number),
                lambda _: tell(f"'{model}' is now version {number}. Press Segment to see it."),
                model,
            )

    def undo(self) -> None:
        """Go back to the version before; returns at once."""
        model = self.state.model
        self._do(
            lambda: self._learning.undo(model),
            lambda _: tell(f"'{model}' is as it was before. Press Segment to see it."),
            model,
        )

    def forget(self, ids: Sequence[str]) -> None:
        """Remove corrections from the store; returns at once."""
        chosen = list(ids)
        entries = [entry for entry in self.state.corrections if entry.id in chosen]

        def forgotten(versions: list[Any]) -> None:
            self._correct.forgotten(entries)
            text = f"Corrections of {len(chosen)} image{'s' * (len(chosen) != 1)} forgotten."
            if versions:
                text += " Versions that learned from them are marked; Fine-tune again for one that did not."
            tell(text)

        if chosen:
            self._do(lambda: self._learning.forget(chosen), forgotten, self.state.model)

    def _do(self, work: Callable[[], Any], done: Callable[[Any], None], model: str) -> None:
        """Do ``work`` on a thread, then show what there is now."""

        def both() -> tuple[Any, list[dict[str, Any]], tuple[SavedCorrections, ...]]:
            result = work()
            return result, self._learning.models(), self._learning.list_corrections()

        def show(found: tuple[Any, list[dict[str, Any]], tuple[SavedCorrections, ...]]) -> None:
            result, models, corrections = found
            if model == self._model.state.name:
                self._show(model, models, corrections)
            done(result)

        self._background.run(both, show, tell_error, name="xlstm-unet-versions")

    def _show(
        self, model: str, models: list[dict[str, Any]], corrections: tuple[SavedCorrections, ...]
    ) -> None:
        state = self.state
        mine = next((entry for entry in models if entry["name"] == model), None)
        found = [Version.of(fields) for fields in mine["versions"]] if mine is not None else []
        state.model = model
        state.root = mine["root"] if mine is not None else ""
        state.current = (mine["current"] or 0) if mine is not None else 0
        state.versions = tuple(version for version in found if version.number is not None)
        state.corrections = tuple(
            entry for entry in corrections if entry.model in (model, state.root) or entry.problem
        )
        waiting = [
            Version.of(fields)
            for entry in models
            if model in (entry["name"], entry["root"])
            for fields in entry["versions"]
            if fields["number"] is None
        ]
        state.waiting = tuple(waiting)
