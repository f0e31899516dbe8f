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
    from xlstm_unet.zoo import Bundle


def train(
    dataset: Annotated[
        Path, typer.Argument(help="Data set: a folder with images/ and labels/, or with index.csv.")
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")],
    recipe: Annotated[str | None, typer.Option(help="Recipe of this package, such as nuclei.")] = None,
    config: Annotated[Path | None, typer.Option(help="Training configuration (TOML).")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Model to start from, by name or folder: its network with a new head."),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="With --from: names of the classes to find, with commas.")
    ] = None,
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

    With --from a model the new one starts from its weights, for other objects or classes. Without --minutes
    and --steps the configuration says how long. Ctrl-C keeps a checkpoint; the same command
    with --resume goes on from there, also after a kill.
    """
    given = [option for option in (recipe, config) if option is not None]
    if len(given) > 1 or not (given or start):
        raise typer.BadParameter("Give either --recipe or --config; with --from neither is needed.")
    if labels is not None and start is None:
        raise typer.BadParameter("--labels goes with --from; else the configuration names the labels.")
    if minutes is not None and steps is not None:
        raise typer.BadParameter("Give either --minutes or --steps.")
    run_folder = output or Path("runs") / name
    source = given[0] if given else None
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import open_dataset
        from xlstm_unet.learn import train as run
        from xlstm_unet.zoo import load_model
        from xlstm_unet.zoo.bundle import check_replaceable

        root = None if start is None else load_model(start)
        settings = _settings(source, root, name, labels).adapted(steps=steps)
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
                start=None if root is None else root.weights,
                on_event=lambda event: _show(event, show),
                cancel=cancel,
            )
        _write(folder, result, settings, data, dataset, root)
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


def _settings(source: str | Path | None, root: Bundle | None, name: str, labels: str | None) -> TrainConfig:
    from xlstm_unet.learn import TrainConfig
    from xlstm_unet.learn.start_from import start_config

    config = None if source is None else TrainConfig.read(source)
    if root is not None:
        names = tuple(part.strip() for part in labels.split(",")) if labels else ()
        return start_config(root.spec, name, labels=names, config=config)
    assert config is not None
    return config.adapted(name=name)


def _show(event: TrainEvent, show: OnProgress) -> None:
    if event.kind == "note":
        warn(event.message)
    elif event.kind == "validation" and event.scores is not None:
        warn(f"step {event.step}: validation score {event.scores['score']:.3f}")
    loss = "" if event.loss is None else f", loss {event.loss:.3f}"
    show(Progress(f"training, step {event.step}{loss}", round(1000 * event.share), 1000))


def _write(
    folder: Path, result: TrainResult, config: TrainConfig, data: Dataset, source: Path, root: Bundle | None
) -> None:
    from xlstm_unet.zoo import write_bundle
    from xlstm_unet.zoo.card import CardFacts, known_licence, model_card

    licence = config.data_licence or "not stated"
    facts = CardFacts(
        data=_data_sentences(data, licence) + _root_sentence(root),
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
        licence=f"The weights were trained on data under this licence, which may bind them:\n\n{licence}\n"
        + (
            ""
            if root is None
            else f"\nThey started from those of {root.spec.name}, under:\n\n{root.licence}\n"
        ),
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


def _root_sentence(root: Bundle | None) -> str:
    if root is None:
        return ""
    return f" The weights started from those of {root.spec.name}, whose licence and data bind them too."
