"""``xlstm-unet finetune``: a better model from corrected label files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xlstm_unet.cli.console import interruptible, print_json, progress_bar, reporting, warn
from xlstm_unet.cli.options import DeviceOption, DiameterOption, JsonOption, ModelOption
from xlstm_unet.errors import CorrectionsError, GuardError
from xlstm_unet.progress import Cancel, OnProgress, Progress

if TYPE_CHECKING:
    from xlstm_unet.learn.corrections import Corrections
    from xlstm_unet.zoo.versions import Root, Version

_THOUSAND = 1000


def finetune(
    model: ModelOption,
    images: Annotated[Path, typer.Option("--images", help="Folder of images.")],
    corrected: Annotated[Path, typer.Option("--corrected", help="Folder of their labels as they should be.")],
    predicted: Annotated[
        Path | None,
        typer.Option("--predicted", help="Folder of the model's own labels: only what differs is learnt."),
    ] = None,
    ignore_label: Annotated[
        int | None, typer.Option("--ignore-label", help="Value of pixels that nobody has looked at.")
    ] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds that it may take; 60 by default.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps instead: repeatable bit for bit.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", "-n", help="Name of the new model, by default <model>-tuned.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Keep it even if it forgot what the model knew.")
    ] = False,
    diameter: DiameterOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on corrected labels, and keep the result as a version that can be undone.

    Labels of <stem> are called <stem> or <stem>_labels. With --predicted the difference is the correction.
    With --ignore-label all pixels but those of that value are. With neither, every pixel is. The corrections
    are kept with your data, as those of napari and 3D Slicer are. A result that forgot much is refused.
    """
    if budget is not None and steps is not None:
        raise typer.BadParameter("Give either --budget or --steps.")
    with reporting(as_json), interruptible() as cancel, progress_bar() as show:
        from xlstm_unet.zoo.versions import root_of

        root = root_of(model)
        given = _read(images, corrected, predicted, ignore_label, diameter, show)
        version = _fine_tune(root, given, budget, steps, name, device, show, cancel)
        version = _keep(version, force)
    if as_json:
        print_json(version.fields())
    else:
        record = version.record
        print(record.message)
        print(f"Version {record.number} of {record.model}: {record.steps} steps in {record.seconds:.0f} s.")
        print(f"Use it with: xlstm-unet segment IMAGES --model {record.model} --output results")


def _read(
    images: Path,
    corrected: Path,
    predicted: Path | None,
    ignore_label: int | None,
    diameter: float | None,
    show: OnProgress,
) -> list[Corrections]:
    """Read what was corrected; see the command's help."""
    import numpy as np

    from xlstm_unet.cli.pairs import pair_images
    from xlstm_unet.images import read_image, read_labels
    from xlstm_unet.learn.corrections import Corrections

    pairs = pair_images(images, corrected)
    predictions = {} if predicted is None else {p.name: p.truth for p in pair_images(images, predicted)}
    found = []
    for done, pair in enumerate(pairs):
        show(Progress(f"reading {pair.name}", done, len(pairs)))
        image = read_image(pair.source)
        labels = np.asarray(read_labels(pair.truth, like=image))
        prediction = np.zeros_like(labels)
        if pair.name in predictions:
            prediction = np.asarray(read_labels(predictions[pair.name], like=image))
        seen = np.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label
        labels = np.where(seen, labels, prediction)
        accepted = seen if predicted is None else None
        found.append(Corrections(image, prediction, labels, accepted, diameter))
    return found


def _fine_tune(
    root: Root,
    given: list[Corrections],
    budget: float | None,
    steps: int | None,
    name: str | None,
    device: str,
    show: OnProgress,
    cancel: Cancel,
) -> Version:
    """Store corrections, learn from them and from those of the model's current version, all from its root."""
    from xlstm_unet.learn.corrections_store import CorrectionStore
    from xlstm_unet.learn.finetune import finetune as run
    from xlstm_unet.zoo.bundle import read_bundle
    from xlstm_unet.zoo.place import user_folder
    from xlstm_unet.zoo.versions import add_pending

    bundle = read_bundle(root.folder)
    store = CorrectionStore(user_folder())
    entries = [store.save(one, root.model, bundle.spec) for one in given]
    ids = [entry.id for entry in entries if entry is not None]
    if not ids:
        raise CorrectionsError(
            "Nothing is corrected: all labels are as predicted.", "Correct some objects first."
        )
    kept = {entry.id for entry in store.entries() if not entry.problem}
    before = [] if root.version is None else [c.id for c in root.version.corrections if c.id in kept]
    corrections = [store.load(number)[1] for number in dict.fromkeys([*before, *ids])]
    tuned = run(
        bundle.spec,
        bundle.build(),
        corrections,
        budget=budget,
        steps=steps,
        replay=bundle.read_replay(),
        device=device,
        on_event=lambda event: _show(event, show),
        cancel=cancel,
    )
    return add_pending(root, tuned, corrections, name=name)


def _keep(version: Version, force: bool) -> Version:
    from xlstm_unet.zoo.versions import discard_version, keep_version

    try:
        return keep_version(version.record.version, force=force)
    except GuardError as error:
        discard_version(version.record.version)
        raise GuardError(error.message, "Correct more images, or use --force.") from error


def _show(event: Mapping[str, Any], show: OnProgress) -> None:
    if event["event"] == "note":
        warn(event["message"])
    elif event["event"] == "step":
        done, left = event["seconds"], event["seconds_left"]
        share = done / max(done + left, 1e-6)
        show(Progress(f"step {event['step']}, loss {event['loss']:.3f}", round(_THOUSAND * share), _THOUSAND))
