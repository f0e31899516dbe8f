"""Segmenting every image of a folder into label files, with the model and settings of the dock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_xlstm_unet.background import Background
from napari_xlstm_unet.channels import channel_choices
from napari_xlstm_unet.geometry import PixelSize
from napari_xlstm_unet.model_part import ModelPart
from napari_xlstm_unet.notify import tell, tell_error, tell_warning
from napari_xlstm_unet.run import Run
from napari_xlstm_unet.segment_part import SegmentPart
from napari_xlstm_unet.state import BatchState, SegmentState
from napari_xlstm_unet.task import Task
from xlstm_unet.errors import CancelledError, DatasetError, ImageError, ModelError, XLSTMUNetError
from xlstm_unet.images import Image, image_stem, list_images, read_image, write_labels
from xlstm_unet.measure.objects import measure_objects, write_measurements
from xlstm_unet.spec import ModelSpec

FOLDER = "labels"
"""Where results go unless told otherwise: a folder of this name inside the source."""


class BatchPart:
    """Runs through a folder; one damaged file does not stop the others.

    Parameters
    ----------
    background
        Threads.
    model, segment
        The other parts: the chosen model, and the one button and progress bar.
    image
        State of the part "Segment": object diameter and stitching are taken from it.
    """

    def __init__(
        self, background: Background, *, model: ModelPart, segment: SegmentPart, image: SegmentState
    ) -> None:
        self.state = BatchState()
        self._background = background
        self._model = model
        self._segment = segment
        self._image = image

    def choose_source(self, folder: str) -> None:
        """Choose the folder with the images; results go beside them unless chosen otherwise."""
        self.state.source = folder
        if not self.state.target:
            self.state.target = str(Path(folder) / FOLDER)

    def start(self) -> None:
        """Segment every image of the folder; returns at once. Wrong input is told to the user."""
        try:
            spec, files, target = self._checked()
        except XLSTMUNetError as error:
            tell_error(error)
            return
        measure, device, model = self.state.measure, self._model.state.device, self._model.state.name
        diameter = None if self._image.auto_diameter or not self._image.has_diameter else self._image.diameter
        run = self._segment.begin(f"{len(files)} images…")

        def each(path: Path) -> None:
            image = read_image(path)
            task = _task(image, spec, diameter, stitch=self._image.stitch)
            task.check_size(self._segment.limit_gb)
            labels = task.canonical(run.segment(task, spec, device, model=model, keep_maps=False).labels)
            write_labels(target / f"{image_stem(path)}_labels.tif", labels, like=image)
            if measure and spec.task == "instances":
                write_measurements(
                    target / f"{image_stem(path)}_objects.csv", measure_objects(labels, image), image
                )

        self._background.run(
            lambda: _through(files, each, run),
            lambda failures: self._done(run, len(files), failures),
            lambda error: self._segment.end(run, error),
            name="xlstm-unet-batch",
        )

    def _checked(self) -> tuple[ModelSpec, list[Path], Path]:
        spec = self._model.state.spec
        if spec is None:
            raise ModelError("No model is ready.", "Choose one at the top of the dock.")
        if self._segment.job.busy:
            raise ModelError("Work is already running.", "Wait for it, or press Cancel.")
        source = Path(self.state.source)
        if not self.state.source or not source.is_dir():
            raise DatasetError(f"'{self.state.source}' is no folder.", "Choose the folder with the images.")
        files = list_images([source])
        if not files:
            raise DatasetError(
                f"The folder {source} holds no image.", "Choose one with TIFF, PNG or NIfTI files."
            )
        return spec, files, Path(self.state.target or source / FOLDER)

    def _done(self, run: Run, total: int, failures: list[str]) -> None:
        self._segment.end(run, status=f"{total - len(failures)} of {total} images segmented.")
        if failures:
            shown = "\n".join(failures[:5]) + ("\n…" if len(failures) > 5 else "")
            tell_warning(f"{len(failures)} of {total} images could not be segmented:\n{shown}")
        else:
            tell(f"{total} images segmented; the labels are in {self.state.target}.")


def _through(files: list[Path], each: Callable[[Path], None], run: Run) -> list[str]:
    """Call ``each`` on every file and return what failed; the run's progress counts files."""
    failures = []
    report = run.report
    for number, path in enumerate(files):

        def tell_step(fraction: float, text: str, number: int = number, name: str = path.name) -> None:
            report((number + fraction) / len(files), f"{name} ({number + 1} of {len(files)})")

        run.report = tell_step
        try:
            each(path)
        except CancelledError:
            raise
        except XLSTMUNetError as error:
            failures.append(f"{path.name}: {error}")
    return failures


def _task(image: Image, spec: ModelSpec, diameter: float | None, *, stitch: bool) -> Task:
    if spec.dimension == 3 and "Z" not in image.axes:
        raise ImageError(f"It has no Z axis, but the model '{spec.name}' works on volumes.")
    colour = image.channels in (3, 4) and image.array.dtype.kind == "u" and "Z" not in image.axes
    choices = channel_choices(image.channels if "C" in image.axes else None, spec, colour=colour)
    if not choices:
        raise ImageError(f"It has {image.channels} channels, but the model expects {spec.input_channels}.")
    return Task(
        image_name=image.name,
        image_id="",
        array=image.array,
        axes=image.axes,
        window=tuple(slice(0, length) for length in image.array.shape),
        dimension=spec.dimension,
        channels=choices[0],
        pixels=PixelSize(image.spacing, image.unit),
        diameter=diameter,
        stitch=stitch and spec.dimension == 2 and "Z" in image.axes,
    )
