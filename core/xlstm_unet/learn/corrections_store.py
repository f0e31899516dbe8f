"""The user's corrections on disk: private, written whole or not at all, kept until they are forgotten.

::

    corrections/            below the user's data folder, readable by the user alone
        <id>.npz            prediction, labels, accepted regions, and what they are of: one file an image
        images/<digest>.npy the image's pixels, once for all entries of it
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import CorrectionsError, ImageChangedError, ImageError, OutputError
from xlstm_unet.files import atomic_path
from xlstm_unet.images import Image
from xlstm_unet.learn.corrections import Corrections, image_digest, total_counts
from xlstm_unet.learn.replay import parse_npy
from xlstm_unet.spec import ModelSpec

ID = re.compile("[0-9a-f]{16}")
MAX_IMAGE_BYTES = 4 << 30
"""Largest image that is kept."""
MAX_FRONT = 2**16
_MAX_UNPACKED = 64 << 30
_MAX_META = 2**20
_VERSION = 1
_LOCK_SECONDS = 20.0
_DAMAGED = (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile, zlib.error, EOFError, ImageError)


@dataclass(frozen=True)
class Entry:
    """What is known of stored corrections without opening their arrays.

    Parameters
    ----------
    id
        Number, 16 hexadecimal digits.
    model
        Name of the model they were saved for.
    image, digest, shape, axes, dtype, spacing, unit, affine
        The image: its name, SHA-256, and what `Image` knows.
    diameter
        Object diameter that the user gave, if any.
    saved
        When, ISO 8601, UTC.
    counts
        As `xlstm_unet.learn.supervision.Changes` counts.
    front
        What the front wanted to be told again.
    bytes
        Size on disk, without the image.
    problem
        Why it cannot be used; empty when it can.
    """

    id: str
    model: str = ""
    image: str = ""
    digest: str = ""
    shape: tuple[int, ...] = ()
    axes: str = ""
    dtype: str = ""
    spacing: tuple[float, ...] | None = None
    unit: Literal["mm", "µm", "pixel"] = "pixel"
    affine: list[list[float]] | None = None
    diameter: float | None = None
    saved: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    front: str = ""
    bytes: int = 0
    problem: str = ""


class CorrectionStore:
    """All corrections of a user.

    Parameters
    ----------
    home
        The user's data folder.
    """

    def __init__(self, home: Path) -> None:
        self.folder = home / "corrections"
        self._images = self.folder / "images"

    def save(
        self,
        corrections: Corrections,
        model: str,
        spec: ModelSpec,
        *,
        entry_id: str | None = None,
        front: str = "",
    ) -> Entry | None:
        """Save corrections of an image for a model; an earlier entry of both is replaced.

        Parameters
        ----------
        corrections
            What to save.
        model, spec
            The model.
        entry_id
            Entry to replace, whatever image it was of.
        front
            Text that comes back with the entry.

        Returns
        -------
        Entry or None
            None if nothing is corrected or accepted: then there is no entry any more.

        Raises
        ------
        OutputError
            If it cannot be written; what was saved before is still there.
        CorrectionsError
            If labels have values that the model does not know, or the image is too large to be kept.
        """
        image = corrections.image
        if image.array.nbytes > MAX_IMAGE_BYTES:
            raise CorrectionsError(
                f"{image.name} has {image.array.nbytes >> 20} MB; corrections keep images of up to "
                f"{MAX_IMAGE_BYTES >> 20} MB.",
                "Crop the image to the part that you correct.",
            )
        counts = {**total_counts([change for _, change in corrections.changes(spec)]), "images": 1}
        digest = image_digest(image)
        number = entry_id or sha256(f"{model}\0{digest}".encode()).hexdigest()[:16]
        if not counts["corrected_voxels"] and not counts["accepted_voxels"]:
            self.forget([number])
            return None
        entry = Entry(
            id=_checked_id(number),
            model=model,
            image=image.name,
            digest=digest,
            shape=image.array.shape,
            axes=image.axes,
            dtype=image.array.dtype.str,
            spacing=image.spacing,
            unit=image.unit,
            affine=None if image.affine is None else image.affine.tolist(),
            diameter=corrections.diameter,
            saved=datetime.now(UTC).isoformat(timespec="seconds"),
            counts=counts,
            front=front,
        )
        data = _packed(entry, corrections)
        with self._locked():
            pixels = self._images / f"{digest}.npy"
            if not pixels.exists():
                with atomic_path(pixels) as temporary, temporary.open("wb") as file:
                    np.save(file, image.array, allow_pickle=False)
            with atomic_path(self._path(number)) as temporary:
                temporary.write_bytes(data)
        return entry

    def entries(self, model: str | None = None) -> list[Entry]:
        """List entries, of one model or of all, newest first; a damaged one is listed for every model."""
        entries = [self._entry(path) for path in sorted(self.folder.glob("*.npz")) if ID.fullmatch(path.stem)]
        chosen = [entry for entry in entries if entry.problem or model in (None, entry.model)]
        return sorted(chosen, key=lambda entry: entry.saved, reverse=True)

    def find(self, model: str, image: Image) -> Entry | None:
        """Return the entry of an image and a model, by the image's pixels."""
        digest = image_digest(image)
        entries = self.entries(model)
        return next((entry for entry in entries if entry.digest == digest and not entry.problem), None)

    def load(self, entry_id: str, image: Image | None = None) -> tuple[Entry, Corrections]:
        """Open an entry.

        Parameters
        ----------
        entry_id
            Which one.
        image
            The image as it is now, if it is at hand; else the pixels that were kept.

        Raises
        ------
        CorrectionsError
            If there is no such entry, or it is damaged.
        ImageChangedError
            If the image's pixels are not those that were corrected.
        """
        path = self._path(_checked_id(entry_id))
        entry = self._entry(path)
        if entry.problem:
            raise CorrectionsError(entry.problem, "Forget these corrections, and correct the image again.")
        if image is not None and image_digest(image) != entry.digest:
            raise ImageChangedError(
                f"The corrections {entry.id} are of {entry.image}; the pixels of {image.name} are others.",
                "Open the image that was corrected, or forget these corrections.",
            )
        try:
            arrays = _read_arrays(path)
            found = image if image is not None else self._image(entry)
            corrections = Corrections(
                found,
                arrays["prediction"],
                arrays["labels"],
                arrays.get("accepted"),
                entry.diameter,
                entry.id,
            )
        except _DAMAGED as error:
            raise CorrectionsError(
                f"The corrections {entry.id} of {entry.image} are damaged: {error}.",
                "Forget these corrections, and correct the image again.",
            ) from error
        return entry, corrections

    def forget(self, ids: Sequence[str]) -> list[str]:
        """Remove entries, and the pixels that no other entry needs; return those that there were."""
        gone = []
        with self._locked():
            for number in ids:
                path = self._path(_checked_id(number))
                if path.exists():
                    path.unlink()
                    gone.append(number)
            if gone:
                needed = {entry.digest for entry in self.entries()}
                for pixels in self._images.glob("*.npy"):
                    if pixels.stem not in needed:
                        pixels.unlink(missing_ok=True)
        return gone

    def _path(self, number: str) -> Path:
        return self.folder / f"{number}.npz"

    def _entry(self, path: Path) -> Entry:
        if not path.exists():
            raise CorrectionsError(
                f"There are no corrections {path.stem!r}.", "They may have been forgotten."
            )
        size = path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                info = archive.getinfo("meta.json")
                if info.file_size > _MAX_META:
                    raise ValueError(f"meta.json has {info.file_size} bytes")
                meta = json.loads(archive.read(info))
            if meta.pop("version") != _VERSION:
                raise ValueError("it is of another version of xlstm-unet")
            for name in ("shape", "spacing"):
                meta[name] = None if meta[name] is None else tuple(meta[name])
            return Entry(**meta | {"id": path.stem, "bytes": size})
        except _DAMAGED as error:
            return Entry(id=path.stem, bytes=size, problem=f"{path} is damaged: {error}.")

    def _image(self, entry: Entry) -> Image:
        array = np.load(self._images / f"{entry.digest}.npy", mmap_mode="r", allow_pickle=False)
        image = Image(
            array.view(np.ndarray),
            entry.axes,
            spacing=entry.spacing,
            unit=entry.unit,
            affine=None if entry.affine is None else np.array(entry.affine),
            name=entry.image,
        )
        if image_digest(image) != entry.digest:
            raise ValueError(f"the pixels of {entry.image} are others than those that were kept")
        return image

    @contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock, Timeout

        try:
            self._images.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            with FileLock(self.folder / "lock", timeout=_LOCK_SECONDS):
                yield
        except Timeout:
            raise OutputError(
                f"Another process is writing to {self.folder} and does not end.", "Wait for it, or end it."
            ) from None
        except OSError as error:
            raise OutputError(
                f"Cannot write to {self.folder}: {error.strerror or error}.",
                "Free some space; what was saved before is still there.",
            ) from error


def _checked_id(number: str) -> str:
    if not ID.fullmatch(number):
        raise CorrectionsError(f"{number!r} is no number of corrections, expected 16 hexadecimal digits.")
    return number


def _packed(entry: Entry, corrections: Corrections) -> bytes:
    """Labels compress a hundredfold at the lowest level already."""
    meta = {name: value for name, value in asdict(entry).items() if name not in ("id", "bytes", "problem")}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("meta.json", json.dumps({"version": _VERSION, **meta}))
        arrays: dict[str, NDArray[Any]] = {
            "prediction": corrections.prediction.astype(np.int32),
            "labels": corrections.labels.astype(np.int32),
        }
        if corrections.accepted is not None:
            arrays["accepted"] = corrections.accepted
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.ascontiguousarray(array), (1, 0), allow_pickle=False)
    return buffer.getvalue()


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename != "meta.json"]
        if sum(m.file_size for m in members) > _MAX_UNPACKED:
            raise ValueError("it unpacks to more than corrections may hold")
        names = {"prediction.npy", "labels.npy", "accepted.npy"}
        if unknown := {m.filename for m in members} - names:
            raise ValueError(f"it holds {sorted(unknown)[0][:60]!r}")
        return {m.filename.removesuffix(".npy"): parse_npy(archive.read(m), m.filename) for m in members}
