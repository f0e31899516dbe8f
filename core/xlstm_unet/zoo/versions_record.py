"""What a version of a fine-tuned model says about itself: ``version.json`` in its bundle."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xlstm_unet import __version__
from xlstm_unet.errors import BundleError
from xlstm_unet.files import atomic_path
from xlstm_unet.learn.corrections import Corrections
from xlstm_unet.learn.finetune import FineTuned
from xlstm_unet.zoo.bundle import SPEC, WEIGHTS
from xlstm_unet.zoo.untrusted import parse_json_object, read_plain_file

RECORD = "version.json"
_MAX_BYTES = 1 << 20

Id = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class LearntFrom(BaseModel):
    """Corrections that a version learnt from: no pixels and no names, only what tells them apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    """Number in the store of the computer where it learnt; empty for corrections from files."""
    digest: Digest


class VersionRecord(BaseModel):
    """A version's fields; see ``docs/worker-protocol.md``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    version: Id
    line: str = ""
    """Which tree of versions it belongs to; empty while pending."""
    number: int | None = None
    parent: int | None = None
    model: str
    root: str
    root_digest: Digest
    verdict: Literal["keep", "warn", "refuse", "too-few"] = "keep"
    message: str = ""
    scores: dict[str, dict[str, Any] | None] = {}
    steps: int = 0
    switch: int = 0
    best_step: int = 0
    root_share: float = 0.0
    seconds: float = 0.0
    seconds_per_step: float = 0.0
    device: str = ""
    curve: tuple[dict[str, Any], ...] = ()
    counts: dict[str, int] = {}
    corrections: tuple[LearntFrom, ...] = ()
    created: str = ""
    software: dict[str, str] = {}
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        tuned: FineTuned,
        corrections: Sequence[Corrections],
        *,
        version: str,
        model: str,
        root: str,
        root_digest: str,
    ) -> VersionRecord:
        """Describe a fine-tuned model."""
        import torch

        return cls(
            version=version,
            model=model,
            root=root,
            root_digest=root_digest,
            verdict=tuned.verdict,
            message=tuned.message,
            scores={
                "held_out": None if tuned.held_out is None else asdict(tuned.held_out),
                "check": None if tuned.check is None else asdict(tuned.check),
            },
            steps=tuned.steps,
            switch=tuned.switch,
            best_step=tuned.best_step,
            root_share=tuned.root_share,
            seconds=round(tuned.seconds, 1),
            seconds_per_step=round(tuned.seconds_per_step, 4),
            device=tuned.device,
            curve=tuned.curve,
            counts=tuned.counts,
            corrections=tuple(LearntFrom(id=one.id, digest=one.digest) for one in corrections),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            software={
                "xlstm-unet": __version__,
                "torch": str(torch.__version__),
                "python": platform.python_version(),
            },
            notes=tuned.notes,
        )

    def write(self, folder: Path) -> None:
        """Write it into a bundle's folder, whole or not at all."""
        with atomic_path(folder / RECORD) as temporary:
            temporary.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_version(folder: Path) -> VersionRecord | None:
    """Read a version's record; None where the folder holds none.

    Raises
    ------
    BundleError
        If it is damaged.
    """
    path = folder / RECORD
    if not path.exists() and not path.is_symlink():
        return None
    try:
        return VersionRecord.model_validate(parse_json_object(read_plain_file(path, _MAX_BYTES), str(path)))
    except ValidationError as error:
        field = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise BundleError(f"{path} is damaged at {field!r}.", "Remove this version.") from error


def bundle_digest(folder: Path) -> str:
    """SHA-256 of a bundle's specification and weights."""
    digest = hashlib.sha256()
    for name in (SPEC, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()
