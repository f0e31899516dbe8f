"""``xlstm-unet evaluate``: scores of a model, or of predictions, against true labels."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import typer

from xlstm_unet.cli.console import print_json, print_table, progress_bar, reporting
from xlstm_unet.cli.options import (
    DeviceOption,
    DiameterOption,
    JsonOption,
    MirrorOption,
    TileOption,
    parse_tile,
)
from xlstm_unet.errors import DatasetError
from xlstm_unet.progress import OnProgress, Progress

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xlstm_unet.cli.scoring import Scored
    from xlstm_unet.images import Image
    from xlstm_unet.segment import Segmenter

T = TypeVar("T")


class TaskChoice(StrEnum):
    """How labels of predictions are compared."""

    instances = "instances"
    classes = "classes"


class SplitChoice(StrEnum):
    """Part of a data set."""

    train = "train"
    val = "val"
    test = "test"


def evaluate(
    labels: Annotated[Path | None, typer.Option("--labels", help="Folder of true labels.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="Folder of images to segment.")] = None,
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Folder of label files to score instead of a model.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Data set folder, instead of --images and --labels.")
    ] = None,
    split: Annotated[SplitChoice, typer.Option(help="Part of the data set.")] = SplitChoice.test,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Name of a model or its folder.")] = None,
    task: Annotated[
        TaskChoice, typer.Option(help="What predictions hold; a model knows its own.")
    ] = TaskChoice.instances,
    diameter: DiameterOption = None,
    tile: TileOption = None,
    mirror: MirrorOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score a model (--model, with --images and --labels or with --dataset), or label files (--predictions).

    A file <stem> belongs to the labels <stem> or <stem>_labels. Instances: F1 at IoU .5, .75, .9, AP
    at .5 and averaged over .5 to .95, PQ. Classes: Dice, surface Dice at 1 mm, 95 % Hausdorff distance.
    """
    tile_size = parse_tile(tile)
    _check_usage(labels=labels, images=images, predictions=predictions, dataset=dataset, model=model)
    with reporting(as_json):
        with progress_bar() as show:
            if predictions is not None:
                rows = _score_files(predictions, _given(labels), task, show)
            else:
                method = _Method.load(_given(model), device, tile_size, diameter, mirror)
                if dataset is not None:
                    rows = _score_dataset(method, dataset, split.value, show)
                else:
                    rows = _score_images(method, _given(images), _given(labels), show)
        _print_scores(rows, as_json)


def _check_usage(**options: object) -> None:
    given = {name for name, value in options.items() if value is not None}
    if given not in ({"predictions", "labels"}, {"model", "images", "labels"}, {"model", "dataset"}):
        raise typer.BadParameter(
            "Give --model with --images and --labels, --model with --dataset, or --predictions with --labels."
        )


def _given(value: T | None) -> T:
    """Return a value that `_check_usage` has made sure of."""
    assert value is not None
    return value


@dataclass(frozen=True)
class _Method:
    """A model with the settings it is run with."""

    segmenter: Segmenter
    diameter: float | None
    mirror: bool | None

    @classmethod
    def load(
        cls,
        model: str,
        device: str,
        tile: int | tuple[int, ...] | None,
        diameter: float | None,
        mirror: bool | None,
    ) -> Self:
        from xlstm_unet.segment import Segmenter
        from xlstm_unet.zoo import load_model

        bundle = load_model(model)
        segmenter = Segmenter(bundle.spec, bundle.build(), device=device, tile=tile, name=bundle.spec.name)
        return cls(segmenter, diameter, mirror)

    def score(self, name: str, image: Image, truth: NDArray[np.int32], group: str = "") -> Scored:
        from xlstm_unet.cli.scoring import score

        spec = self.segmenter.spec
        found = self.segmenter(image, diameter=self.diameter, mirror=self.mirror).labels
        return score(name, found, truth, image, task=spec.task, labels=spec.labels, group=group)


def _score_images(method: _Method, images: Path, labels: Path, show: OnProgress) -> list[Scored]:
    from xlstm_unet.cli.pairs import pair_images
    from xlstm_unet.images import read_image, read_labels

    rows = []
    pairs = pair_images(images, labels)
    for done, pair in enumerate(pairs):
        show(Progress(pair.name, done, len(pairs)))
        image = read_image(pair.source)
        rows.append(method.score(pair.name, image, read_labels(pair.truth, like=image)))
    return rows


def _score_dataset(method: _Method, folder: Path, split: str, show: OnProgress) -> list[Scored]:
    from xlstm_unet.learn import open_dataset

    samples = open_dataset(folder, splits=(split,), on_progress=show).samples
    if not samples:
        raise DatasetError(f"{folder} has no samples in split {split!r}.", "Choose another --split.")
    rows = []
    for done, sample in enumerate(samples):
        show(Progress(sample.id, done, len(samples)))
        rows.append(method.score(sample.id, sample.image, sample.labels, sample.modality))
    return rows


def _score_files(predictions: Path, labels: Path, task: TaskChoice, show: OnProgress) -> list[Scored]:
    from xlstm_unet.cli.pairs import pair_predictions
    from xlstm_unet.cli.scoring import classes_up_to, score
    from xlstm_unet.images import read_image, read_labels

    pairs = pair_predictions(predictions, labels)
    classes = classes_up_to(
        max(int(read_labels(path).max()) for pair in pairs for path in (pair.source, pair.truth))
        if task is TaskChoice.classes
        else 0
    )
    rows = []
    for done, pair in enumerate(pairs):
        show(Progress(pair.name, done, len(pairs)))
        grid = read_image(pair.truth)
        found, truth = read_labels(pair.source, like=grid), read_labels(pair.truth)
        rows.append(score(pair.name, found, truth, grid, task=task.value, labels=classes))
    return rows


def _print_scores(rows: list[Scored], as_json: bool) -> None:
    from xlstm_unet.cli.scoring import group_means, means

    mean, groups = means(rows), group_means(rows)
    if as_json:
        images = [
            {"image": row.name, **({"group": row.group} if row.group else {}), **row.scores} for row in rows
        ]
        print_json({"mean": mean, **({"groups": groups} if groups else {}), "images": images})
        return
    lines = [(row.name, row.scores) for row in rows]
    lines += [(f"mean {name}", scores) for name, scores in groups.items()]
    lines.append((f"mean of {len(rows)}", mean))
    columns = list(_flat(mean))
    print_table(("Image", *columns), [(name, *(_flat(scores)[c] for c in columns)) for name, scores in lines])


def _flat(scores: dict[str, Any]) -> dict[str, Any]:
    """Name scores of labels ``label score`` in one level."""
    flat = {}
    for name, value in scores.items():
        if isinstance(value, dict):
            flat.update({f"{name} {key}": number for key, number in value.items()})
        else:
            flat[name] = value
    return flat
