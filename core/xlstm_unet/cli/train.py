"""``xlstm-unet train``: make a model from images with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from xlstm_unet.cli.console import interruptible, print_json, progress_bar, reporting, warn
from xlstm_unet.cli.options import DeviceOption, JsonOption
from xlstm_unet.progress import OnProgress, Progress

if TYPE_CHECKING:
    from xlstm_unet.learn import Dataset, TrainConfig, TrainEvent, TrainResult


def train(
    dataset: Annotated[
        Path, typer.Argument(help="Data set: a folder with images/ and labels/, or with index.csv.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")],
    recipe: Annotated[str | None, typer.Option(help="Recipe of this package, such as nuclei.")] = None,
    config: Annotated[Path | None, typer.Option(help="Training configuration (TOML).")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Folder of the run, by default runs/<name>; the model is <name> in it."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="Time to train for.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps to train for.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model and write its bundle.

    Without --minutes and --steps the configuration says how long. Ctrl-C keeps a checkpoint; the same command
    with --resume goes on from there, also after a kill.
    """
    if (recipe is None) == (config is None):
        raise typer.BadParameter("Give either --recipe or --config.")
    if minutes is not None and steps is not None:
        raise typer.BadParameter("Give either --minutes or --steps.")
    run_folder = output or Path("runs") / name
    source = recipe if recipe is not None else Path(str(config))
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import TrainConfig, open_dataset
        from xlstm_unet.learn import train as run
        from xlstm_unet.zoo.bundle import check_replaceable

        settings = TrainConfig.read(source).adapted(name=name, steps=steps)
        folder = run_folder / settings.model.name
        check_replaceable(folder)
        with progress_bar() as show:
            data = open_dataset(
                dataset,
                splits=("train", "val"),
                channels=settings.model.channel_names,
                on_progress=show,
                cancel=cancel,
            )
            result = run(
                settings,
                data,
                run_folder,
                device=device,
                minutes=minutes,
                resume=resume,
                on_event=lambda event: _show(event, show),
                cancel=cancel,
            )
        _write(folder, result, settings, data, dataset)
        if as_json:
            print_json(
                {
                    "model": name,
                    "folder": str(folder),
                    "scores": result.scores,
                    "steps": result.steps,
                    "best_step": result.best_step,
                    "seconds": round(result.seconds, 1),
                }
            )
        else:
            print(f"Model written to {folder}; validation score {result.scores['score']:.3f}.")
            print(f"Use it with: xlstm-unet segment IMAGES --model {folder} --output results")


def _show(event: TrainEvent, show: OnProgress) -> None:
    if event.kind == "note":
        warn(event.message)
    elif event.kind == "validation" and event.scores is not None:
        warn(f"step {event.step}: validation score {event.scores['score']:.3f}")
    loss = "" if event.loss is None else f", loss {event.loss:.3f}"
    show(Progress(f"training, step {event.step}{loss}", round(1000 * event.share), 1000))


def _write(folder: Path, result: TrainResult, config: TrainConfig, data: Dataset, source: Path) -> None:
    from xlstm_unet.zoo import write_bundle
    from xlstm_unet.zoo.card import CardFacts, known_licence, model_card

    licence = config.data_licence or "not stated"
    facts = CardFacts(
        data=_data_sentences(data, licence),
        licence=known_licence(licence),
        scores=result.scores,
        scores_on=f"the validation split of {data.name}, on which weights and decoding were chosen",
        scores_command=f"xlstm-unet evaluate --model {folder.name} --dataset {source.name} --split val",
    )
    write_bundle(
        folder,
        result.spec,
        result.network,
        card=model_card(result.spec, facts),
        licence=f"The weights were trained on data under this licence, which may bind them:\n\n{licence}\n",
        replay=result.replay,
    )


def _data_sentences(data: Dataset, licence: str) -> str:
    kept = data.split("train")
    modalities = sorted({sample.modality for sample in kept if sample.modality})
    counts = ", ".join(f"{m} {sum(sample.modality == m for sample in kept)}" for m in modalities)
    return (
        f"{len(kept)} images of {data.name}{f' ({counts})' if counts else ''}, "
        f"{len(data.split('val'))} more to choose weights by. Licence of the data: {licence}."
    )
