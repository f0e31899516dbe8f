"""``xlstm-unet demo``: segment the bundled sample images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import print_json, print_table, progress_bar, reporting
from xlstm_unet.cli.options import DeviceOption, JsonOption
from xlstm_unet.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xlstm_unet.samples import Sample
    from xlstm_unet.segment import Segmenter

DEFAULT_OUTPUT = Path("demo-output")
_SHOWN = ("image", "description", "found", "true", "seconds", "score")


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = DEFAULT_OUTPUT,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Model for all samples of its dimension; by default each has its own."
        ),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment the bundled sample images, write labels and overlay pictures, and compare with the truth.

    The score is F1 at an overlap (IoU) of one half for single objects, and the mean Dice for classes.
    """
    with reporting(as_json):
        from xlstm_unet.samples import SAMPLES
        from xlstm_unet.zoo import load

        with progress_bar() as show:
            names = [model] if model is not None else sorted({sample.model for sample in SAMPLES})
            models = {name: load(name, device=device) for name in names}
            rows = []
            for done, sample in enumerate(SAMPLES):
                show(Progress(sample.name, done, len(SAMPLES)))
                segmenter = models[model or sample.model]
                if segmenter.spec.dimension == sample.dimension:
                    rows.append(_segment_sample(segmenter, sample, output))
        if as_json:
            print_json({"model": model, "images": rows})
            return
        print_table(
            ("Sample", "What it shows", "Found", "True", "Seconds", "Score"),
            [[row[key] for key in _SHOWN] for row in rows],
        )
        print(f"Labels and overlay pictures are in {output.resolve()}")


def _segment_sample(segmenter: Segmenter, sample: Sample, output: Path) -> dict[str, Any]:
    import numpy as np

    from xlstm_unet.images import read_image, read_labels, write_labels, write_overlay

    image = read_image(sample.image)
    result = segmenter(image)
    ending = ".tif" if sample.dimension == 2 else ".nii.gz"
    labels, overlay = output / f"{sample.name}_labels{ending}", output / f"{sample.name}_overlay.png"
    write_labels(labels, result.labels, image)
    write_overlay(overlay, image, result.labels)
    truth = read_labels(sample.labels)
    return {
        "image": sample.name,
        "description": sample.description,
        "model": segmenter.name,
        "labels": str(labels),
        "overlay": str(overlay),
        "found": len(np.unique(result.labels[result.labels > 0])),
        "true": len(np.unique(truth[truth > 0])),
        "seconds": round(result.seconds, 2),
        "score": _score(segmenter, result.labels, truth),
    }


def _score(segmenter: Segmenter, labels: NDArray[np.int32], truth: NDArray[np.int32]) -> float:
    from statistics import fmean

    from xlstm_unet.measure import score_classes, score_instances

    if segmenter.spec.task == "instances":
        return score_instances(labels, truth).f1_50
    scores = score_classes(labels, truth, segmenter.spec.labels, (1.0,) * truth.ndim)
    return fmean(one.dice for one in scores.values())
