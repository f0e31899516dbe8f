"""What a worker does about corrections, fine-tuning and versions; see ``docs/worker-protocol.md``."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from xlstm_unet.errors import CorrectionsError
from xlstm_unet.learn.corrections import Corrections, beyond
from xlstm_unet.learn.corrections_store import CorrectionStore, Entry
from xlstm_unet.learn.finetune import finetune
from xlstm_unet.learn.supervision import find_changes
from xlstm_unet.progress import Progress
from xlstm_unet.worker.images import ImageParams, ModelName, ModelParams, given_image
from xlstm_unet.worker.protocol import Array, Reply
from xlstm_unet.worker.registry import Method, Params, Task
from xlstm_unet.zoo import versions
from xlstm_unet.zoo.bundle import read_bundle, read_spec
from xlstm_unet.zoo.place import user_folder
from xlstm_unet.zoo.store import find_model

EntryId = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
VersionId = EntryId

_MINE = frozenset({"prediction", "labels"})
_THOUSAND = 1000


class SaveParams(ModelParams, ImageParams):
    """Parameters of ``save_corrections``."""

    diameter: Annotated[float, Field(gt=0)] | None = None
    """What ``segment`` was given, if it was."""
    id: EntryId | None = None
    """Entry to replace."""
    front: Annotated[str, Field(max_length=2**16)] = ""
    """Text that comes back with the entry."""


class ListParams(Params):
    """One model or all."""

    model: ModelName | None = None


class CorrectionsParams(ImageParams):
    """Parameters of ``load_corrections``."""

    model: ModelName | None = None
    id: EntryId | None = None


class ForgetParams(Params):
    """Parameters of ``forget_corrections``."""

    ids: Annotated[tuple[EntryId, ...], Field(max_length=10_000)]


class FineTuneParams(ModelParams):
    """Parameters of ``finetune``."""

    budget: float | None = None
    steps: int | None = None
    switch: int | None = None
    device: str = "auto"
    name: Annotated[str, Field(max_length=64)] | None = None
    ids: Annotated[tuple[EntryId, ...], Field(max_length=10_000)] | None = None


class VersionParams(Params):
    """A pending version."""

    version: VersionId


class KeepParams(VersionParams):
    """Parameters of ``keep_version``."""

    name: Annotated[str, Field(max_length=64)] | None = None
    force: bool = False


class UseParams(ModelParams):
    """Parameters of ``use_version``."""

    version: Annotated[int, Field(ge=0)]


class FineTuning:
    """Corrections, fine-tuning and versions of the user of this machine."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._running = False

    @property
    def _store(self) -> CorrectionStore:
        return CorrectionStore(user_folder())

    def methods(self) -> tuple[Method, ...]:
        """Return what can be done."""
        accepted, image = frozenset({"accepted"}), frozenset({"image"})
        return (
            Method(
                "preview_corrections",
                ModelParams,
                self.preview_corrections,
                _MINE,
                optional=accepted,
                lane="quick",
            ),
            Method(
                "save_corrections",
                SaveParams,
                self.save_corrections,
                _MINE | image,
                optional=accepted,
                lane="quick",
            ),
            Method("list_corrections", ListParams, self.list_corrections, lane="quick"),
            Method(
                "load_corrections", CorrectionsParams, self.load_corrections, optional=image, lane="quick"
            ),
            Method("forget_corrections", ForgetParams, self.forget_corrections, lane="quick"),
            Method("finetune", FineTuneParams, self.finetune),
            Method("stop_finetune", Params, self.stop_finetune, lane="quick"),
            Method("keep_version", KeepParams, self.keep_version, lane="quick"),
            Method("discard_version", VersionParams, self.discard_version, lane="quick"),
            Method("list_versions", ListParams, self.list_versions, lane="quick"),
            Method("undo_version", ModelParams, self.undo_version, lane="quick"),
            Method("use_version", UseParams, self.use_version, lane="quick"),
        )

    def preview_corrections(self, params: ModelParams, task: Task) -> Reply:
        """Answer with what was changed, and the state of each pixel."""
        spec = read_spec(find_model(params.model))
        labels = task.arrays["labels"]
        accepted = _accepted(task)
        found = find_changes(task.arrays["prediction"], labels, accepted, spec.task)
        values = {"counts": {**found.counts, "images": 1}, "beyond": beyond(labels, spec)}
        return Reply(values, {"states": found.states})

    def save_corrections(self, params: SaveParams, task: Task) -> Reply:
        """Save the corrections of an image."""
        spec = read_spec(find_model(params.model))
        corrections = Corrections(
            given_image(params, task),
            task.arrays["prediction"],
            task.arrays["labels"],
            _accepted(task),
            params.diameter,
        )
        entry = self._store.save(corrections, params.model, spec, entry_id=params.id, front=params.front)
        if entry is None:
            return Reply({"saved": False, "id": params.id, "counts": {}})
        return Reply({"saved": True, "id": entry.id, "counts": entry.counts})

    def list_corrections(self, params: ListParams, task: Task) -> Reply:
        """Answer with all entries."""
        return Reply({"corrections": [_fields(entry) for entry in self._store.entries(params.model)]})

    def load_corrections(self, params: CorrectionsParams, task: Task) -> Reply:
        """Answer with the arrays of an entry."""
        image = given_image(params, task) if "image" in task.arrays else None
        number = params.id
        if number is None:
            if image is None or params.model is None:
                raise CorrectionsError(
                    "load_corrections got neither an id nor a model with an image.", "Give one."
                )
            found = self._store.find(params.model, image)
            if found is None:
                raise CorrectionsError(f"No corrections of {image.name} are kept for {params.model}.")
            number = found.id
        entry, corrections = self._store.load(number, image)
        arrays: dict[str, Array] = {
            "prediction": corrections.prediction,
            "labels": corrections.labels,
        }
        if corrections.accepted is not None:
            arrays["accepted"] = corrections.accepted
        return Reply(_fields(entry), arrays)

    def forget_corrections(self, params: ForgetParams, task: Task) -> Reply:
        """Remove entries, and say which versions learnt from them."""
        gone: set[str] = set(self._store.forget(params.ids))
        learnt = [
            {"model": model["name"], "version": version["version"], "number": version["number"]}
            for model in versions.list_versions()
            for version in model["versions"]
            if gone & {one["id"] for one in version["corrections"]}
        ]
        return Reply({"forgotten": sorted(gone), "versions": learnt})

    def finetune(self, params: FineTuneParams, task: Task) -> Reply:
        """Fine-tune a model on its corrections; answer with a pending version."""
        self._stop.clear()
        self._running = True
        try:
            return self._finetune(params, task)
        finally:
            self._running = False

    def _finetune(self, params: FineTuneParams, task: Task) -> Reply:
        task.progress(Progress("preparing", 0, 1))
        root = versions.root_of(params.model)
        versions.check_room(root)
        bundle = read_bundle(root.folder)
        corrections = self._corrections(params, root)

        def tell(event: Mapping[str, Any]) -> None:
            task.progress(_progress(event, params.steps))

        tuned = finetune(
            bundle.spec,
            bundle.build(),
            corrections,
            budget=params.budget,
            steps=params.steps,
            switch=params.switch,
            replay=bundle.read_replay(),
            device=params.device,
            on_event=tell,
            cancel=task.cancelled,
            stop=self._stop.is_set,
        )
        version = versions.add_pending(root, tuned, corrections, name=params.name)
        if task.cancelled():
            versions.discard_version(version.record.version)
        return Reply(self._with_forgotten(version.fields()))

    def _corrections(self, params: FineTuneParams, root: versions.Root) -> list[Corrections]:
        """Load what is to be learnt: the ids given, or all of the model and of its current version."""
        ids = params.ids
        if ids is None:
            usable = {entry.id: entry for entry in self._store.entries() if not entry.problem}
            learnt = {one.id for one in root.version.corrections} if root.version is not None else set()
            newest: dict[str, str] = {}
            for entry in usable.values():  # newest first: of one image the newest counts
                if entry.model == params.model or entry.id in learnt:
                    newest.setdefault(entry.digest, entry.id)
            ids = tuple(reversed(newest.values()))
        if not ids:
            raise CorrectionsError(
                f"No corrections are kept for {params.model}.", "Correct a prediction, or accept a region."
            )
        return [self._store.load(number)[1] for number in ids]

    def stop_finetune(self, params: Params, task: Task) -> Reply:
        """End a running fine-tuning with the best so far."""
        self._stop.set()
        return Reply({"stopped": self._running})

    def keep_version(self, params: KeepParams, task: Task) -> Reply:
        """Keep a pending version."""
        version = versions.keep_version(params.version, name=params.name, force=params.force)
        return Reply(self._with_forgotten(version.fields()))

    def discard_version(self, params: VersionParams, task: Task) -> Reply:
        """Remove a pending version."""
        return Reply({"discarded": versions.discard_version(params.version)})

    def list_versions(self, params: ListParams, task: Task) -> Reply:
        """Answer with models that were fine-tuned and their versions."""
        models = versions.list_versions(params.model)
        for model in models:
            model["versions"] = [self._with_forgotten(version) for version in model["versions"]]
        return Reply({"models": models})

    def undo_version(self, params: ModelParams, task: Task) -> Reply:
        """Make the parent of a model's current version current."""
        versions.undo_version(params.model)
        return self._model(params.model)

    def use_version(self, params: UseParams, task: Task) -> Reply:
        """Make a version current."""
        versions.use_version(params.model, params.version)
        return self._model(params.model)

    def _model(self, name: str) -> Reply:
        found = next(model for model in versions.list_versions(name) if model["name"] == name)
        found["versions"] = [self._with_forgotten(version) for version in found["versions"]]
        return Reply(found)

    def _with_forgotten(self, version: dict[str, Any]) -> dict[str, Any]:
        kept = {path.stem for path in self._store.folder.glob("*.npz")}
        learnt = [{**one, "forgotten": one["id"] not in kept} for one in version["corrections"]]
        return {**version, "corrections": learnt}


def _accepted(task: Task) -> Any:
    accepted = task.arrays.get("accepted")
    return None if accepted is None else np.asarray(accepted, dtype=bool)


def _fields(entry: Entry) -> dict[str, Any]:
    return {name: value for name, value in asdict(entry).items() if name != "dtype"}


def _progress(event: Mapping[str, Any], steps: int | None) -> Progress:
    if event["event"] == "step":
        seconds, left = float(event["seconds"]), float(event["seconds_left"])
        share = event["step"] / steps if steps else seconds / max(seconds + left, 1e-6)
        return Progress("training", min(_THOUSAND - 1, int(_THOUSAND * share)), _THOUSAND, event)
    if event["event"] == "scores" and event["step"] == 0:
        return Progress("before", 1, 1, event)
    return Progress("training", _THOUSAND - 1, _THOUSAND, event)
