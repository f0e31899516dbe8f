"""The part "Correct and fine-tune": corrections are saved, learned from, judged, kept or discarded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xlstm_unet.errors import ImageError, XLSTMUNetError
from xlstm_unet.progress import Progress
from xlstm_unet.worker.job import Job
from xlstm_unet.worker.protocol import Reply
from XLSTMUNetLib.corrections import (
    MODEL_ATTRIBUTE,
    SAVED_ATTRIBUTE,
    accepted,
    predicted_by,
    prediction,
    shown_regions,
)
from XLSTMUNetLib.mrml import read_volume
from XLSTMUNetLib.segments import adopt_segment, read_labels, segments_of, unknown_segments
from XLSTMUNetLib.state import ModelInfo, Phase, Tuning

if TYPE_CHECKING:
    from XLSTMUNetLib.controller import Controller

_STAGES = {"preparing": (0.0, 0.05), "before": (0.05, 0.05), "training": (0.1, 0.8), "after": (0.9, 0.1)}


def _is_corrected(pieces: Sequence[tuple[Any, dict[str, Any]]]) -> bool:
    return any(
        "accepted" in arrays or not np.array_equal(arrays["prediction"], arrays["labels"])
        for _image, arrays in pieces
    )


def _free_name(name: str, taken: Sequence[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free


def _nothing() -> None:
    """Do nothing."""


class TuningPart:
    """Corrections, fine-tuning and versions.

    Parameters
    ----------
    controller
        The rest of the module.
    """

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._job: Job | None = None

    def save(
        self,
        segmentation: Any,
        volume: Any,
        then: Callable[[], None] = _nothing,
        failed: Callable[[XLSTMUNetError], None] | None = None,
    ) -> None:
        """Count the corrections of a segmentation and store them; returns at once.

        Nothing happens for a segmentation that comes from no model.

        Parameters
        ----------
        segmentation, volume
            The nodes.
        then
            Called when all are stored.
        failed
            Called with an error; otherwise it is shown.
        """
        state = self._controller.state
        model = state.model(predicted_by(segmentation))
        if model is None or volume is None:
            state.change(counts={}, unknown=())
            return
        try:
            pieces = self._pieces(segmentation, volume, model)
        except XLSTMUNetError as error:
            state.change(counts={}, status=str(error))
            if failed is not None:
                failed(error)
            return
        unknown = self._unknown(segmentation, model)
        if not (_is_corrected(pieces) or segmentation.GetAttribute(SAVED_ATTRIBUTE)):
            # Another segmentation of this image may hold the corrections that are stored: leave them alone.
            state.change(counts={}, unknown=unknown)
            then()
            return
        counts: dict[str, int] = {}
        waiting = len(pieces)

        def stored(reply: Reply) -> None:
            nonlocal waiting
            for name, count in reply.values["counts"].items():
                counts[name] = counts.get(name, 0) + count
            waiting -= 1
            if not waiting:
                some = counts.get("corrected_voxels") or counts.get("accepted_voxels")
                segmentation.SetAttribute(SAVED_ATTRIBUTE, "1" if some else None)
                state.change(counts=counts if some else {}, unknown=unknown)
                then()

        for image, arrays in pieces:
            self._controller.backend.save_corrections(
                image, model.name, arrays, done=stored, failed=failed or self._controller.tell
            )

    def tune(self, segmentation: Any, volume: Any, device: str, **effort: float) -> None:
        """Store the corrections, then learn from all corrections of the model; returns at once.

        Parameters
        ----------
        segmentation, volume
            The nodes.
        device
            Name, as the worker calls it.
        **effort
            ``budget`` in seconds, or ``steps``.

        Raises
        ------
        ImageError
            If there is nothing that was segmented.
        """
        controller = self._controller
        if controller.state.busy:
            return
        model = predicted_by(segmentation)
        if not model or volume is None:
            raise ImageError(
                "There is no result to correct.", "Press Segment, correct the result, then press Fine-tune."
            )
        controller.state.change(
            phase=Phase.TUNING, progress=0.0, status="Saving corrections...", tuning=Tuning()
        )
        self.save(segmentation, volume, lambda: self._start(model, device, effort), self._failed)

    def stop(self) -> None:
        """End the training with the best so far."""
        self._controller.backend.call(
            "stop_finetune", {}, done=lambda reply: None, failed=self._controller.tell
        )

    def cancel(self) -> None:
        """End the training and drop what it learned."""
        if self._job is not None:
            self._job.cancel()

    def keep(
        self, version: str, *, force: bool = False, done: Callable[[str], None] = lambda name: None
    ) -> None:
        """Make a pending version the model; ``done`` gets the model's name."""

        def kept(reply: Reply) -> None:
            name = str(reply.values["model"])
            self._controller.state.change(tuning=None, status=f"{name} has learned from your corrections.")
            self._controller.refresh_models()
            done(name)

        self._call("keep_version", {"version": version, "force": force}, kept)

    def discard(self, version: str) -> None:
        """Drop a pending version; the corrections stay."""

        def discarded(reply: Reply) -> None:
            self._controller.state.change(tuning=None, status="Discarded. The corrections are still there.")
            self.refresh_versions()

        self._call("discard_version", {"version": version}, discarded)

    def undo(self, model: str) -> None:
        """Make the parent of a model's current version current."""
        self._call("undo_version", {"model": model}, self._changed)

    def use(self, model: str, number: int) -> None:
        """Make a kept version current."""
        self._call("use_version", {"model": model, "version": number}, self._changed)

    def forget(self, model: str) -> None:
        """Forget all corrections that were made for a model."""

        def listed(reply: Reply) -> None:
            ids = [entry["id"] for entry in reply.values["corrections"]]
            if ids:
                self._call("forget_corrections", {"ids": ids}, self._changed)

        self._call("list_corrections", {"model": model}, listed)

    def new_model(self, segmentation: Any, done: Callable[[str], None] = lambda name: None) -> None:
        """Make a model that also knows the segments that the model of a result does not.

        The result counts as the new model's from then on, so that these segments are corrections of it.

        Parameters
        ----------
        segmentation
            A result with such segments.
        done
            Called with the new model's name.

        Raises
        ------
        ImageError
            If there is no such segment.
        """
        state = self._controller.state
        model = state.model(predicted_by(segmentation))
        ids = unknown_segments(segmentation, model.labels) if model is not None else []
        if model is None or not ids:
            raise ImageError("The model knows every segment.", "Fine-tune it on your corrections.")
        labels = [adopt_segment(segmentation, segment_id) for segment_id in ids]
        name = _free_name(f"{model.name}-new", [each.name for each in state.models])

        def listed(reply: Reply) -> None:
            state.models = tuple(ModelInfo.from_summary(entry) for entry in reply.values["models"])
            if segmentation.GetScene() is not None:
                segmentation.SetAttribute(MODEL_ATTRIBUTE, name)
            state.change(
                unknown=(), status=f"{name} knows {', '.join(each.name for each in labels)}: fine-tune it."
            )
            done(name)

        wanted = [
            {"name": each.name, "color": each.color, "terminology": each.terminology} for each in labels
        ]
        self._call(
            "new_model",
            {"model": model.name, "name": name, "labels": wanted},
            lambda reply: self._call("list_models", {}, listed),
        )

    def refresh_versions(self) -> None:
        """Ask for the versions again."""
        self._call(
            "list_versions",
            {},
            lambda reply: self._controller.state.change(versions=tuple(reply.values["models"])),
        )

    def _call(self, method: str, params: dict[str, Any], done: Callable[[Reply], None]) -> None:
        self._controller.backend.call(method, params, done=done, failed=self._controller.tell)

    def _changed(self, reply: Reply) -> None:
        self._controller.state.change(status="Done.")
        self._controller.refresh_models()

    def _pieces(self, segmentation: Any, volume: Any, model: ModelInfo) -> list[tuple[Any, dict[str, Any]]]:
        """Return image and arrays of each part of the volume that the model was shown."""
        base = prediction(segmentation, volume)
        labels = read_labels(segmentation, volume, model.labels, base)
        if self._controller.predictions.restore(segmentation, volume, labels):
            base = prediction(segmentation, volume)
        mask = accepted(segmentation, volume)
        image = read_volume(volume)
        parts: Sequence[Any] = shown_regions(segmentation) or [np.s_[:, :, :]]
        return [
            (
                image if part == np.s_[:, :, :] else image.crop(part),
                {
                    "prediction": base[part],
                    "labels": labels[part],
                    **({} if mask is None else {"accepted": mask[part]}),
                },
            )
            for part in parts
        ]

    def _unknown(self, segmentation: Any, model: ModelInfo) -> tuple[str, ...]:
        if segmentation.GetScene() is None:
            return ()
        ids = unknown_segments(segmentation, model.labels)
        return tuple(
            segment.GetName() for segment_id, segment in segments_of(segmentation) if segment_id in ids
        )

    def _start(self, model: str, device: str, effort: dict[str, float]) -> None:
        controller = self._controller
        if controller.state.phase is not Phase.TUNING:
            controller.end("Cancelled.")
            return
        self._job = controller.backend.call(
            "finetune",
            {"model": model, "device": device, **effort},
            done=self._tuned,
            failed=self._failed,
            progress=self._progress,
        )

    def _tuned(self, reply: Reply) -> None:
        self._job = None
        tuning = self._controller.state.tuning or Tuning()
        tuning.version = dict(reply.values)
        self._controller.end(str(reply.values["message"]))
        self.refresh_versions()

    def _failed(self, error: XLSTMUNetError) -> None:
        self._job = None
        self._controller.state.tuning = None
        self._controller.failed(error)

    def _progress(self, step: Progress) -> None:
        tuning = self._controller.state.tuning
        begin, share = _STAGES.get(step.stage, (0.0, 0.0))
        text = {"before": "Measuring before", "after": "Measuring after"}.get(
            step.stage, step.stage.capitalize()
        )
        event = step.values or {}
        if tuning is not None and event.get("event") == "step":
            tuning.losses.append((event["seconds"], event["loss"]))
            text = (
                f"Step {event['step']} of {event['steps']}, loss {event['loss']:.3f}, "
                f"{event['seconds_left']:.0f} s left"
            )
        elif tuning is not None and event.get("event") == "scores":
            tuning.scores.append((event["seconds"], event["held_out"], event["check"]))
        elif event.get("event") == "note":
            text = event["message"]
        self._controller.report(begin + share * step.done / max(step.total, 1), text)
