"""One run of "Segment": from a volume to segments, step by step on the application's thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xlstm_unet.errors import ImageError, XLSTMUNetError
from xlstm_unet.progress import Progress
from xlstm_unet.worker.job import Job
from xlstm_unet.worker.protocol import Reply
from XLSTMUNetLib.corrections import (
    Array,
    accepted,
    keep_prediction,
    predicted_by,
    prediction,
    shown_regions,
    with_region,
)
from XLSTMUNetLib.history import Predictions
from XLSTMUNetLib.mrml import VolumeImage, check_slices, read_volume, region_of_roi
from XLSTMUNetLib.segments import (
    Label,
    labels_of_objects,
    new_segmentation,
    read_labels,
    remove_segments_of,
    write_labels,
)
from XLSTMUNetLib.sequences import SegmentationSequence, sequence_of
from XLSTMUNetLib.state import ModelInfo
from XLSTMUNetLib.worker import Backend

_SHARES = {"network": (0.05, 0.85), "decoding": (0.9, 0.1)}
"""Where in a frame's time a stage of the worker begins, and its share."""


class RegionNeededError(ImageError):
    """The volume shows more than the model was made for: the panel asks for a region."""


@dataclass
class Request:
    """What the panel says when Segment is pressed.

    Parameters
    ----------
    volume, segmentation, roi
        Nodes; no segmentation makes a new one, no ROI takes the whole volume.
    model, device
        What to run, and on what.
    all_frames
        Segment every frame of the sequence that the volume shows, into a new segmentation.
    before_writing
        Called with the segmentation just before it is changed: saves a state for undo.
    run_as
        Folder of a pending version to run in place of the model, for a preview.
    """

    volume: Any
    model: ModelInfo
    segmentation: Any = None
    roi: Any = None
    device: str = "auto"
    all_frames: bool = False
    before_writing: Callable[[Any], None] = lambda segmentation: None
    run_as: str = ""


def check_region(image: VolumeImage, model: ModelInfo, roi: Any) -> None:
    """Ask for a region where the model expects a part and the volume shows more.

    Raises
    ------
    RegionNeededError
        With what the model expects.
    """
    view = model.field_of_view
    if view is None or roi is not None:
        return
    if any(size > most for size, most in zip(image.extent_mm, view["max_extent_mm"], strict=True)):
        size = " x ".join(f"{length:.0f}" for length in reversed(image.extent_mm))
        usual = " x ".join(f"{length:.0f}" for length in reversed(view["extent_mm"]))
        raise RegionNeededError(
            f"'{image.name}' shows {size} mm; {model.name} expects {view['description']} (about {usual} mm).",
            "Draw a region around it: New under 'Region'.",
        )


class Segmenting:
    """A run; made by the controller.

    Parameters
    ----------
    request
        What to do.
    backend
        The worker.
    predictions
        Gets to know the result.
    report
        Called with the part done and a line of text.
    done, failed
        One of them is called at the end: with the segmentation and a line of text, or the error.

    Raises
    ------
    XLSTMUNetError
        If the request cannot be done; nothing has been changed then.
    """

    def __init__(
        self,
        request: Request,
        backend: Backend,
        predictions: Predictions,
        *,
        report: Callable[[float, str], None],
        done: Callable[[Any, str], None],
        failed: Callable[[XLSTMUNetError], None],
    ) -> None:
        self._request = request
        self._backend = backend
        self._predictions = predictions
        self._report, self._done, self._failed = report, done, failed
        self._sequence: SegmentationSequence | None = None
        self._job: Job | None = None
        self._cancelled = False
        self._frame = 0
        self._seconds = 0.0
        self._notes: list[str] = []
        image = read_volume(request.volume)
        check_slices(image, request.model.dimension)
        check_region(image, request.model, request.roi)
        self._region = None if request.roi is None else region_of_roi(request.roi, request.volume)
        self._current, self._keep = self._users_work()
        self._target = request.segmentation
        if request.all_frames:  # always into a new one, which the sequence's browser then shows
            sequence_of(request.volume)
            self._target = new_segmentation(request.volume, self._name())
            self._sequence = SegmentationSequence(request.volume, self._target)
        self._shape = image.array.shape
        self._image = image

    def start(self) -> None:
        """Send the first request."""
        if self._keep:
            arrays = dict(self._keep)
            self._job = self._backend.call(
                "preview_corrections",
                {"model": self._request.model.name},
                arrays,
                done=self._send_with_states,
                failed=self._fail,
            )
        else:
            self._send({})

    def cancel(self) -> None:
        """End it within about a second; nothing is written."""
        self._cancelled = True
        if self._job is not None:
            self._job.cancel()

    def _users_work(self) -> tuple[Array | None, dict[str, Array]]:
        """Return the labels as they are, and what the worker needs to know of the user's changes to them."""
        target, volume, model = self._request.segmentation, self._request.volume, self._request.model
        if target is None or self._request.all_frames or model.task != "classes":
            return None, {}
        if not predicted_by(target):
            return read_labels(target, volume, model.labels), {}
        base = prediction(target, volume)
        current = read_labels(target, volume, model.labels, base)
        mask = accepted(target, volume)
        if np.array_equal(current, base) and mask is None:
            return current, {}
        keep = {"prediction": base, "labels": current}
        return current, keep if mask is None else {**keep, "accepted": mask}

    def _send_with_states(self, reply: Reply) -> None:
        self._keep["states"] = reply.arrays["states"]
        self._send({"keep_labels": self._keep["labels"], "keep_states": self._keep["states"]})

    def _send(self, keep: dict[str, Array]) -> None:
        image, region = self._image, self._region
        spans = None if region is None else [(part.start, part.stop) for part in region]
        if region is not None and self._shows_parts:
            image, spans = image.crop(region), None
            keep = {name: array[region] for name, array in keep.items()}
        self._job = self._backend.segment(
            image,
            self._request.run_as or self._request.model.name,
            self._request.device,
            region=spans,
            keep=keep,
            done=self._take,
            failed=self._fail,
            progress=self._progress,
        )

    @property
    def _shows_parts(self) -> bool:
        return self._request.model.field_of_view is not None

    def _take(self, reply: Reply) -> None:
        """Write the labels of a frame, and go on with the next."""
        try:
            if self._cancelled:
                raise ImageError("Cancelled.")
            self._check_nodes()
            self._write(reply)
        except XLSTMUNetError as error:
            self._fail(error)
            return
        self._seconds += float(reply.values["seconds"])
        self._notes += [note for note in reply.values["notes"] if note not in self._notes]
        if self._sequence is not None:
            self._sequence.add(self._frame)
            self._frame += 1
            if self._frame < self._sequence.frames:
                self._next_frame()
                return
            self._sequence.finish()
        self._done(self._target, self._summary(reply))

    def _next_frame(self) -> None:
        assert self._sequence is not None
        try:
            self._image = read_volume(self._sequence.image(self._frame))
            if self._image.array.shape != self._shape:
                raise ImageError(
                    f"Frame {self._frame + 1} has another size than the first.",
                    "Segment the frames one by one.",
                )
        except XLSTMUNetError as error:
            self._fail(error)
            return
        self._send({})

    def _check_nodes(self) -> None:
        for node, what in ((self._request.volume, "volume"), (self._target, "segmentation")):
            if node is not None and node.GetScene() is None:
                raise ImageError(f"The {what} was deleted while it was segmented.", "The result was dropped.")
        if self._request.volume.GetImageData().GetDimensions()[::-1] != self._shape:
            raise ImageError("The volume was changed meanwhile.", "The result was dropped: segment again.")

    def _write(self, reply: Reply) -> None:
        request = self._request
        found, labels = reply.arrays["labels"], self._labels(reply)
        part = np.s_[:] if self._region is None else self._region
        full = np.zeros(self._shape, np.int32) if self._current is None else self._current.copy()
        full[part] = found if found.shape != self._shape else found[part]
        base = full
        if self._target is None:
            self._target = new_segmentation(request.volume, self._name())
        elif self._sequence is None:
            if self._current is not None:
                self._predictions.remember(self._target, request.volume, self._current)
            request.before_writing(self._target)
        regions = []
        if self._region is not None and self._shows_parts:
            regions = with_region(shown_regions(self._target), self._region)
        if request.model.task == "instances":
            remove_segments_of(self._target, request.model.name)
        write_labels(self._target, request.volume, full, labels, request.model.name)
        if request.model.task == "classes" and self._sequence is None and not request.run_as:
            known = self._keep["states"] > 0 if self._keep else None
            keep_prediction(
                self._target, request.volume, base, request.model.name, accepted=known, regions=regions
            )
            self._predictions.remember(self._target, request.volume, full)

    def _labels(self, reply: Reply) -> tuple[Label, ...]:
        model = self._request.model
        if model.task == "classes":
            return model.labels
        return labels_of_objects(int(reply.values["objects"]), model.labels[0])

    def _name(self) -> str:
        suffix = " (preview)" if self._request.run_as else ""
        return f"{self._request.volume.GetName()} - {self._request.model.name}{suffix}"

    def _progress(self, step: Progress) -> None:
        begin, share = _SHARES.get(step.stage, (0.0, 0.05))
        part = begin + share * step.done / max(step.total, 1)
        frames = self._sequence.frames if self._sequence is not None else 1
        text = step.stage.capitalize() + (f", frame {self._frame + 1} of {frames}" if frames > 1 else "")
        self._report((self._frame + part) / frames, f"{text}: {step.done} of {step.total}")

    def _fail(self, error: XLSTMUNetError) -> None:
        if self._sequence is not None:
            self._sequence.abandon()
            if self._target.GetScene() is not None:
                self._target.GetScene().RemoveNode(self._target)
        self._failed(error)

    def _summary(self, reply: Reply) -> str:
        what = "Done" if self._request.model.task == "classes" else f"{reply.values['objects']} objects"
        return " ".join((f"{what} in {self._seconds:.1f} s on {reply.values['device']}.", *self._notes[:3]))
