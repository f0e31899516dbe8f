"""The offer of a new model where labels go beyond those of the chosen one."""

from __future__ import annotations

from collections.abc import Sequence

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.correct_part import CorrectPart
from napari_xlstm_unet.learning import Learning
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell, tell_error
from xlstm_unet.spec import ModelSpec


class NewModelPart:
    """Makes a model that knows further classes, and lets the selected result belong to it.

    Parameters
    ----------
    learning, background
        The worker, and threads to wait for it on.
    model, correct
        The other parts.
    """

    def __init__(
        self, learning: Learning, background: Background, *, model: ModelPart, correct: CorrectPart
    ) -> None:
        self._learning = learning
        self._background = background
        self._model = model
        self._correct = correct

    @property
    def root(self) -> str:
        """The model to start from."""
        return self._correct.state.model

    def names(self) -> tuple[str, ...]:
        """Return names for the new labels, to begin with."""
        result = self._correct.result
        known = len(result.outcome.spec.labels) if result is not None else 0
        highest = max(self._correct.state.beyond, default=known)
        return tuple(f"label {value}" for value in range(known + 1, highest + 1))

    def make(self, name: str, labels: Sequence[str]) -> None:
        """Make the model ``name`` with further classes; returns at once."""
        root, result = self.root, self._correct.result

        def made(spec: ModelSpec) -> None:
            if result is not None:
                self._correct.belongs_to(result, name, spec)
            self._model.refresh(name)
            tell(f"'{name}' is made. It knows {', '.join(labels)} after you press Fine-tune.")

        self._background.run(
            lambda: self._learning.new_model(root, name, labels),
            made,
            tell_error,
            name="xlstm-unet-new-model",
        )
