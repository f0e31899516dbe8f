"""``xlstm-unet demo``: segment the bundled sample images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import print_json, print_table, progress_bar, reporting
from xlstm_unet.cli.options import DeviceOption, JsonOption
from xlstm_unet.progress import Progress

if TYPE_CHECKING:
    from xlstm_unet.samples import Sample
    from xlstm_unet.segment import Segmenter

DEFAULT_OUTPUT = Path("demo-output")
_SHOWN = ("image", "description", "objects", "n_true", "seconds", "f1_50")


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = DEFAULT_OUTPUT,
    model: Annotated[str, typer.Option("--model", "-m", help="Name of a model or its folder.")] = "nuclei",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Segment the bundled sample images, write labels and overlay pictures, and compare with the truth."""
    with reporting(as_json):
        from xlstm_unet.samples import SAMPLES
        from xlstm_unet.zoo import load

        with progress_bar() as show:
            segmenter = load(model, device=device)
            rows = []
            for done, sample in enumerate(SAMPLES):
                show(Progress(sample.name, done, len(SAMPLES)))
                rows.append(_segment_sample(segmenter, sample, output))
        if as_json:
            print_json({"model": model, "images": rows})
            return
        print_table(
            ("Sample", "What it shows", "Objects", "True", "Seconds", "F1"),
            [[row[key] for key in _SHOWN] for row in rows],
        )
        print(f"Labels and overlay pictures are in {output.resolve()}")


def _segment_sample(segmenter: Segmenter, sample: Sample, output: Path) -> dict[str, Any]:
    from xlstm_unet.images import read_image, read_labels, write_labels, write_overlay
    from xlstm_unet.measure import score_instances

    image = read_image(sample.image)
    result = segmenter(image)
    labels, overlay = output / f"{sample.name}_labels.tif", output / f"{sample.name}_overlay.png"
    write_labels(labels, result.labels, image)
    write_overlay(overlay, image, result.labels)
    scores = score_instances(result.labels, read_labels(sample.labels))
    return {
        "image": sample.name,
        "description": sample.description,
        "labels": str(labels),
        "overlay": str(overlay),
        "objects": scores.n_pred,
        "n_true": scores.n_true,
        "seconds": round(result.seconds, 2),
        "f1_50": scores.f1_50,
    }
