"""``xlstm-unet train``: make a model from images with labels."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import interruptible, print_json, progress_bar, reporting, warn
from xlstm_unet.cli.evaluate import TaskChoice
from xlstm_unet.cli.options import DeviceOption, JsonOption
from xlstm_unet.progress import OnProgress, Progress

if TYPE_CHECKING:
    from xlstm_unet.learn import Dataset, TrainConfig, TrainEvent, TrainResult
    from xlstm_unet.learn.plan import Wishes
    from xlstm_unet.zoo import Bundle


class NetworkChoice(StrEnum):
    """Variants of the network."""

    bot = "bot"
    enc = "enc"
    dense = "dense"


class MixerChoice(StrEnum):
    """What mixes positions."""

    vil = "vil"
    none = "none"


def train(
    dataset: Annotated[
        Path,
        typer.Argument(
            help="Data set: a folder with images/ and labels/, with index.csv, or in nnU-Net's raw layout."
        ),
    ],
    name: Annotated[str, typer.Option("--name", "-n", help="Name of the new model.")],
    recipe: Annotated[str | None, typer.Option(help="Recipe of this package, such as nuclei.")] = None,
    config: Annotated[Path | None, typer.Option(help="Training configuration (TOML or JSON).")] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", help="Model to start from, by name or folder; other labels get a new head."),
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
    network: Annotated[
        NetworkChoice | None, typer.Option(help="Where ViL layers stand; planned networks are bot.")
    ] = None,
    mixer: Annotated[
        MixerChoice | None, typer.Option(help="none leaves the ViL layers out: convolutions only.")
    ] = None,
    width: Annotated[int, typer.Option(min=4, max=256, help="Planned: features of the first stage.")] = 32,
    memory: Annotated[float, typer.Option(min=0.1, help="Planned: GB for a training step, roughly.")] = 8.0,
    task: Annotated[
        TaskChoice | None, typer.Option(help="Planned: what label numbers are; found out otherwise.")
    ] = None,
    plan_only: Annotated[
        bool, typer.Option("--plan-only", help="Show the plan, keep it as plan.json, and stop.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --output.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model and write its bundle.

    Without --recipe, --config and --from, voxel size, patch, network and normalisation are planned from the
    images by nnU-Net's rules, and shown first. With --from a model the new one starts from its weights, for
    other objects or classes. Without --minutes and --steps the configuration says how long. Ctrl-C keeps a
    checkpoint; the same command with --resume goes on from there, also after a kill. On several GPUs:
    accelerate launch --num_processes 2 -m xlstm_unet.cli train ...
    """
    given = [option for option in (recipe, config) if option is not None]
    if len(given) > 1:
        raise typer.BadParameter("Give either --recipe or --config.")
    if plan_only and (given or start is not None):
        raise typer.BadParameter("--plan-only goes without --recipe, --config and --from: they need no plan.")
    if labels is not None and start is None:
        raise typer.BadParameter("--labels goes with --from; else the configuration names the labels.")
    if minutes is not None and steps is not None:
        raise typer.BadParameter("Give either --minutes or --steps.")
    run_folder = output or Path("runs") / name
    with reporting(as_json), interruptible() as cancel:
        from xlstm_unet.learn import open_dataset
        from xlstm_unet.learn import train as run
        from xlstm_unet.learn.plan import Wishes, with_network
        from xlstm_unet.learn.start_from import starting_weights
        from xlstm_unet.learn.team import is_first_process
        from xlstm_unet.zoo import load_model
        from xlstm_unet.zoo.bundle import check_replaceable

        root = None if start is None else load_model(start)
        source = given[0] if given else None
        settings = None if source is None and root is None else _settings(source, root, name, labels)
        folder = run_folder / name
        check_replaceable(folder)
        with progress_bar() as show:
            data = open_dataset(
                dataset,
                splits=("train", "val"),
                channels=() if settings is None else settings.model.channel_names,
                on_progress=show,
                cancel=cancel,
            )
            if settings is None:
                wishes = Wishes(
                    network=_chosen(network) or "bot",
                    mixer=_chosen(mixer) or "vil",
                    width=width,
                    memory=memory,
                    task=_chosen(task),
                )
                settings = _planned(name, data, wishes, run_folder if plan_only else None)
            settings = with_network(settings, _chosen(network), _chosen(mixer)).adapted(steps=steps)
            if plan_only:
                return
            result = run(
                settings,
                data,
                run_folder,
                device=device,
                minutes=minutes,
                resume=resume,
                start=None if root is None else starting_weights(root.spec, root.weights, settings.model),
                on_event=lambda event: _show(event, show),
                cancel=cancel,
            )
        if not is_first_process():
            return
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


def _chosen(choice: Any) -> Any:
    return None if choice is None else choice.value


def _planned(name: str, data: Dataset, wishes: Wishes, folder: Path | None) -> TrainConfig:
    """Plan, show the plan, and with a folder keep it there."""
    from xlstm_unet.files import atomic_path
    from xlstm_unet.learn.fingerprint import fingerprint
    from xlstm_unet.learn.plan import describe, plan

    found = fingerprint(data)
    settings = plan(name, found, data.description, wishes)
    for line in describe(settings, found):
        warn(line)
    if folder is not None:
        path = folder / "plan.json"
        with atomic_path(path) as temporary:
            temporary.write_text(settings.model_dump_json(indent=2) + "\n", encoding="utf-8")
        warn(f"The whole plan is in {path}; train with it, or with what you make of it: --config {path}")
    return settings


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
