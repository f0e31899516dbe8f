"""``xlstm-unet segment``: labels for image files and folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.cases import OVERLAY_ENDING, Case, find_cases
from xlstm_unet.cli.console import (
    error_fields,
    print_error,
    print_json,
    print_table,
    progress_bar,
    reporting,
    warn,
)
from xlstm_unet.cli.options import (
    AxesOption,
    DeviceOption,
    DiameterOption,
    JsonOption,
    MirrorOption,
    ModelOption,
    OutputOption,
    TileOption,
    parse_tile,
)
from xlstm_unet.cli.region import Region, RegionOption, parse_region
from xlstm_unet.errors import DeviceError, XLSTMUNetError

if TYPE_CHECKING:
    from xlstm_unet.progress import OnProgress
    from xlstm_unet.segment import Segmentation, Segmenter


@dataclass(frozen=True)
class _Settings:
    output: Path
    axes: str | None
    series: str | None
    region: Region | None
    diameter: float | None
    threshold: float | None
    seed_height: float | None
    min_size: int | None
    mirror: bool | None
    measure: bool
    overlay: bool
    seg_nrrd: bool

    @property
    def decoding(self) -> dict[str, Any]:
        chosen = {"threshold": self.threshold, "seed_height": self.seed_height, "min_size": self.min_size}
        return {name: value for name, value in chosen.items() if value is not None}


def segment(
    images: Annotated[
        list[Path], typer.Argument(help="Image files or folders of them; folders or zip archives of DICOM.")
    ],
    model: ModelOption,
    output: OutputOption,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Also write <stem>_objects.csv: area, place, intensity of each."),
    ] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also write <stem>_overlay.png: outlines on the image.")
    ] = False,
    seg_nrrd: Annotated[
        bool,
        typer.Option("--seg-nrrd", help="Also write <stem>.seg.nrrd: for 3D Slicer, with names and colours."),
    ] = False,
    region: RegionOption = None,
    series: Annotated[
        str | None, typer.Option("--series", help="DICOM series: its number, description or UID.")
    ] = None,
    diameter: DiameterOption = None,
    threshold: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Foreground probability an object needs.")
    ] = None,
    seed_height: Annotated[
        float | None, typer.Option(min=0.01, max=0.99, help="Higher splits less, lower splits more.")
    ] = None,
    min_size: Annotated[int | None, typer.Option(min=0, help="Smallest object in pixels.")] = None,
    tile: TileOption = None,
    mirror: MirrorOption = None,
    axes: AxesOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment images and write <stem>_labels.tif for each (NIfTI, NRRD, DICOM: <stem>_labels.nii.gz).

    For a model of several channels, files <stem>_0000, <stem>_0001, ... are one image. A file that fails does
    not stop the others; the exit code is 1 then.
    """
    tile_size = parse_tile(tile)
    settings = _Settings(
        output=output,
        axes=axes,
        series=series,
        region=parse_region(region),
        diameter=diameter,
        threshold=threshold,
        seed_height=seed_height,
        min_size=min_size,
        mirror=mirror,
        measure=measure,
        overlay=overlay,
        seg_nrrd=seg_nrrd,
    )
    with reporting(as_json):
        from xlstm_unet.zoo import load_model

        bundle = load_model(model)
        cases = find_cases(images, bundle.spec)
        from xlstm_unet.segment import Segmenter

        segmenter = Segmenter(
            bundle.spec, bundle.build(), device=device, tile=tile_size, name=bundle.spec.name
        )
        results = _segment_all(segmenter, cases, settings)
        if as_json:
            print_json({"model": bundle.spec.name, "images": results})
        else:
            _print_summary(results)
        if any("error" in result for result in results):
            raise typer.Exit(1)


def _segment_all(segmenter: Segmenter, cases: list[Case], settings: _Settings) -> list[dict[str, Any]]:
    results = []
    with progress_bar() as show:
        for i, case in enumerate(cases):
            path = case.paths[0]
            prefix = f"{path.name} ({i + 1} of {len(cases)})"
            try:
                results.append(_segment_case(segmenter, case, settings, _prefixed(show, prefix)))
            except XLSTMUNetError as error:
                print_error(error, str(path))
                results.append({"image": str(path), "error": error_fields(error)})
    return results


def _prefixed(show: OnProgress, prefix: str) -> OnProgress:
    from xlstm_unet.progress import Progress

    return lambda step: show(Progress(f"{prefix}: {step.stage}", step.done, step.total))


def _segment_case(segmenter: Segmenter, case: Case, settings: _Settings, show: OnProgress) -> dict[str, Any]:
    from xlstm_unet.images import write_labels, write_overlay, write_segmentation
    from xlstm_unet.measure import measure_objects, write_measurements
    from xlstm_unet.segment.segments import name_segments

    try:
        image = case.read(settings.axes, settings.series)
        segmentation = segmenter(
            image,
            region=None if settings.region is None else settings.region.of(image),
            diameter=settings.diameter,
            mirror=settings.mirror,
            keep_maps=bool(settings.decoding),
            on_progress=show,
        )
        labels = segmentation.decode(**settings.decoding) if settings.decoding else segmentation.labels
    except MemoryError as error:
        raise DeviceError("Not enough memory for this image.", "Use a smaller --tile.") from error
    stem = case.name if settings.series is None else image.name
    target = settings.output / f"{stem}_labels{'.nii.gz' if case.is_volume else '.tif'}"
    write_labels(target, labels, image)
    path = str(case.paths[0])
    result = {"image": path, "labels": str(target), **_describe(segmentation, labels, image.read_as)}
    if settings.seg_nrrd:
        segments = settings.output / f"{stem}.seg.nrrd"
        write_segmentation(segments, labels, image, name_segments(segmentation.spec, labels))
        result["segmentation"] = str(segments)
    if settings.measure:
        table = settings.output / f"{stem}_objects.csv"
        write_measurements(table, measure_objects(labels, image), image)
        result["measurements"] = str(table)
    if settings.overlay:
        picture = settings.output / f"{stem}{OVERLAY_ENDING}.png"
        write_overlay(picture, image, labels)
        result["overlay"] = str(picture)
    return result


def _describe(segmentation: Segmentation, labels: Any, read_as: str) -> dict[str, Any]:
    return {
        **_count(segmentation, labels),
        "seconds": round(segmentation.seconds, 3),
        "device": segmentation.device,
        "diameter": segmentation.diameter,
        "read_as": read_as,
        "notes": list(segmentation.notes),
    }


def _count(segmentation: Segmentation, labels: Any) -> dict[str, Any]:
    import numpy as np

    counts = np.zeros(int(labels.max()) + 1, dtype=np.int64)
    for plane in labels:
        counts += np.bincount(plane.ravel(), minlength=len(counts))
    if segmentation.spec.task == "instances":
        return {"objects": int(np.count_nonzero(counts[1:]))}
    found = {label.name: label.value for label in segmentation.spec.labels}
    pixels = {name: int(counts[value]) if value < len(counts) else 0 for name, value in found.items()}
    return {"pixels": pixels}


def _found(result: dict[str, Any]) -> str:
    if "objects" in result:
        return f"{result['objects']} objects"
    return ", ".join(f"{name} {count}" for name, count in result["pixels"].items())


def _print_summary(results: list[dict[str, Any]]) -> None:
    done = [result for result in results if "error" not in result]
    if done:
        print_table(
            ("Image", "Found", "Seconds", "Labels"),
            [(Path(r["image"]).name, _found(r), r["seconds"], r["labels"]) for r in done],
        )
    for result in done:
        for note in result["notes"]:
            warn(f"{result['image']}: {note}")
    if len(done) < len(results):
        warn(f"{len(results) - len(done)} of {len(results)} images failed; see above.")
