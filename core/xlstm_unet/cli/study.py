"""``xlstm-unet study``: what proves a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import interruptible, print_json, progress_bar, reporting
from xlstm_unet.cli.evaluate import SplitChoice
from xlstm_unet.cli.options import DeviceOption, JsonOption, MirrorOption, ModelOption, OutputOption

if TYPE_CHECKING:
    from xlstm_unet.study.scoring import Diameter
    from xlstm_unet.zoo import Bundle

app = typer.Typer(no_args_is_help=True, help="Prove a model: accuracy, robustness, comparison of networks.")

DatasetArgument = Annotated[Path, typer.Argument(help="Data set folder, as for `train`.")]
SplitOption = Annotated[SplitChoice, typer.Option(help="Part of the data set.")]
DiameterChoice = Annotated[
    str, typer.Option("--diameter", help="Object diameter in pixels; auto to estimate it, none to ignore it.")
]


@app.command()
def accuracy(
    dataset: DatasetArgument,
    model: ModelOption,
    output: OutputOption,
    split: SplitOption = SplitChoice.test,
    diameter: DiameterChoice = "auto",
    mirror: MirrorOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Score a model on a split, by kind of image or by label, beside a plain method.

    The plain method is Otsu's threshold with a watershed, or for classes the mean mask of the training split.
    Writes accuracy.json, accuracy.md and pictures of the best, median and worst image.
    """
    chosen = _parse_diameter(diameter)
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import open_dataset
        from xlstm_unet.study.accuracy import measure_accuracy
        from xlstm_unet.study.class_accuracy import measure_classes
        from xlstm_unet.study.report import jsonable
        from xlstm_unet.zoo import load

        segmenter = load(model, device)
        with progress_bar() as show:
            classes = segmenter.spec.task == "classes"
            data = open_dataset(
                dataset,
                splits={split.value, "train"} if classes else {split.value},
                channels=segmenter.spec.channel_names,
                on_progress=show,
                cancel=cancel,
            )
            common: dict[str, Any] = {"mirror": mirror, "on_progress": show, "cancel": cancel}
            if classes:
                result = measure_classes(segmenter, data, split.value, output, **common)
            else:
                result = measure_accuracy(segmenter, data, split.value, output, diameter=chosen, **common)
        if as_json:
            print_json(jsonable(result))
        else:
            print((output / "accuracy.md").read_text(encoding="utf-8"))


@app.command()
def robustness(
    dataset: DatasetArgument,
    model: ModelOption,
    output: OutputOption,
    split: SplitOption = SplitChoice.test,
    max_images: Annotated[
        int | None, typer.Option(min=1, help="Most images of each kind; all when not given.")
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure what changes of scale, content and tiles do to a model's scores.

    Writes robustness.json, robustness.md and, with matplotlib, robustness.png.
    """
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import open_dataset
        from xlstm_unet.study.report import jsonable
        from xlstm_unet.study.robustness import measure_robustness

        bundle = _bundle(model)
        with progress_bar() as show:
            data = open_dataset(dataset, splits=(split.value,), on_progress=show, cancel=cancel)
            result = measure_robustness(
                bundle.spec,
                bundle.build(),
                data,
                split.value,
                output,
                max_images=max_images,
                device=device,
                on_progress=show,
                cancel=cancel,
            )
        if as_json:
            print_json(jsonable(result))
        else:
            print((output / "robustness.md").read_text(encoding="utf-8"))


@app.command()
def compare(
    dataset: DatasetArgument,
    output: OutputOption,
    config: Annotated[
        str, typer.Option(help="Recipe of this package or training configuration (TOML) that the arms vary.")
    ],
    steps: Annotated[int, typer.Option(min=1, help="Training steps of every run.")],
    arms: Annotated[
        str,
        typer.Option(help="Networks: none, bot, enc, dense, plain, or paths of configurations."),
    ] = "none,bot,enc,dense,plain",
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each network.")] = 3,
    split: SplitOption = SplitChoice.val,
    jobs: Annotated[int, typer.Option(min=1, help="Runs at a time, each in its own process.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each run.")] = 1,
    keep_weights: Annotated[bool, typer.Option("--keep-weights", help="Keep the runs' weights.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train networks from several seeds for equally many steps and rank them by score and cost.

    Started again it keeps finished runs and goes on with the others. Writes compare.json and compare.md.
    """
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import TrainConfig
        from xlstm_unet.study import compare as study
        from xlstm_unet.study.report import jsonable

        base = TrainConfig.read(config)
        with progress_bar() as show:
            result = study.compare(
                base,
                dataset,
                output,
                arms=arms.split(","),
                seeds=range(1, seeds + 1),
                steps=steps,
                split=split.value,
                jobs=jobs,
                threads=threads,
                device=device,
                keep_weights=keep_weights,
                on_progress=show,
                cancel=cancel,
            )
        if as_json:
            print_json(jsonable(result))
        else:
            print((output / "compare.md").read_text(encoding="utf-8"))


def _parse_diameter(text: str) -> Diameter:
    if text == "auto":
        return "auto"
    if text == "none":
        return "none"
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no number, auto or none", param_hint="--diameter") from None


def _bundle(model: str) -> Bundle:
    from xlstm_unet.zoo import load_model

    return load_model(model)
