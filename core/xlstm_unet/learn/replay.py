"""The replay pack of a bundle: some training patches to rehearse, others to check what was forgotten."""

from __future__ import annotations

import io
import json
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_unet.errors import BundleError
from xlstm_unet.files import atomic_path
from xlstm_unet.learn.bank import network_input
from xlstm_unet.learn.dataset import Sample
from xlstm_unet.spec import ModelSpec

MAX_BYTES = 1_000_000
"""Largest file, compressed."""
PARTS = {"train": 0.6, "check": 0.35}
"""Parts, and the share of `MAX_BYTES` that each may fill."""
INTENSITY_RANGE = (-0.5, 2.0)
"""Normalised intensities that the 256 stored levels span, for schemes that scale images to about 0 to 1."""

_VERSION = 1
_MAX_PATCHES = 512
_MISSES = 8
_MAX_PIXELS = 2**16
"""Pixels of a patch: several must fit into a pack."""
_SCALED = ("percentile", "rescale01", "rgb01")
_LARGEST_INTENSITY = 1e30
_MAX_UNPACKED = 64 << 20


@dataclass(frozen=True)
class ReplayPatch:
    """One patch.

    Parameters
    ----------
    image
        uint8 (C, *spatial); `intensities` gives what the network takes. One channel where all were equal.
    labels
        uint16 (*spatial), 0 is background.
    id, modality
        Sample it was cut from.
    range
        Normalised intensities that 0 and 255 of ``image`` stand for.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    id: str
    modality: str
    range: tuple[float, float] = INTENSITY_RANGE

    def intensities(self, channels: int) -> NDArray[np.float32]:
        """Return the normalised image, (channels, *spatial) float32."""
        low, high = self.range
        image = low + self.image.astype(np.float32) * ((high - low) / 255)
        return np.repeat(image, channels, axis=0) if len(image) == 1 else image


@dataclass(frozen=True)
class ReplayPack:
    """Patches to rehearse (``train``) and patches never trained on (``check``).

    Parameters
    ----------
    train, check
        From the training and from the validation split.
    licence
        Licence of the data the patches are from.
    """

    train: tuple[ReplayPatch, ...]
    check: tuple[ReplayPatch, ...]
    licence: str = ""

    def save(self, path: Path) -> None:
        """Write as compressed ``.npz``.

        Raises
        ------
        BundleError
            If it is larger than `MAX_BYTES`.
        """
        data = self._packed()
        if len(data) > MAX_BYTES:
            raise BundleError(f"The replay pack has {len(data)} bytes, expected at most {MAX_BYTES}.")
        with atomic_path(path) as temporary:
            temporary.write_bytes(data)

    @classmethod
    def load(cls, path: Path) -> ReplayPack:
        """Read and check a pack.

        Raises
        ------
        BundleError
            If it is missing, too large, damaged, or holds anything but patches.
        """
        try:
            if (size := path.stat().st_size) > MAX_BYTES:
                raise BundleError(f"{path} has {size} bytes, expected at most {MAX_BYTES}.")
            arrays = _arrays(path)
            meta = json.loads(arrays.pop("meta").tobytes().decode("utf-8"))
            if not isinstance(meta, dict) or meta.get("version") != _VERSION:
                raise BundleError(f"{path} is no replay pack of version {_VERSION}.")
            parts = {part: tuple(_patches(arrays, meta[part], part)) for part in PARTS}
            pack = cls(**parts, licence=str(meta["licence"]))
        except BundleError:
            raise
        except (
            OSError,
            KeyError,
            ValueError,
            TypeError,
            RuntimeError,
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
        ) as error:
            raise BundleError(f"{path} cannot be read as a replay pack: {error}.") from error
        if arrays:
            raise BundleError(f"{path} holds unexpected arrays: {', '.join(sorted(arrays))[:200]}.")
        return pack

    def _packed(self) -> bytes:
        arrays: dict[str, NDArray[Any]] = {}
        meta: dict[str, Any] = {"version": _VERSION, "licence": self.licence}
        for part in PARTS:
            patches: tuple[ReplayPatch, ...] = getattr(self, part)
            meta[part] = [{"id": p.id, "modality": p.modality, "range": p.range} for p in patches]
            for number, patch in enumerate(patches):
                arrays[f"{part}_{number:03d}_image"] = patch.image
                arrays[f"{part}_{number:03d}_labels"] = patch.labels
        arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8)
        return _compressed(arrays)


def make_replay(
    train: Sequence[Sample], check: Sequence[Sample], spec: ModelSpec, *, licence: str = ""
) -> ReplayPack:
    """Cut a pack: patches from every modality in turn, until the size is reached.

    Parameters
    ----------
    train, check
        Samples of the training and of the validation split.
    spec
        Model; patches have at most 3/4 of its patch size, and 65,536 pixels.
    licence
        Licence of the data.
    """
    parts = {}
    for part, samples in (("train", train), ("check", check)):
        budget = int(MAX_BYTES * PARTS[part])
        patches: list[ReplayPatch] = []
        misses = 0
        for sample in _in_turn(samples):
            if (patch := _cut(sample, spec)) is None:
                continue
            cost = len(_compressed({"image": patch.image, "labels": patch.labels}))
            if cost <= budget:
                patches.append(patch)
                budget -= cost
            else:
                misses += 1
            if misses == _MISSES or len(patches) == _MAX_PATCHES:
                break
        parts[part] = tuple(patches)
    return ReplayPack(**parts, licence=licence)


def _in_turn(samples: Sequence[Sample]) -> list[Sample]:
    """Samples of all modalities in turn; within each spread over its list rather than in order."""
    lists = []
    for modality in sorted({sample.modality for sample in samples}):
        own = [sample for sample in samples if sample.modality == modality and (sample.labels > 0).any()]
        order = np.random.default_rng(0).permutation(len(own))
        lists.append([own[index] for index in order])
    return [sample for row in zip_longest(*lists) for sample in row if sample is not None]


def _cut(sample: Sample, spec: ModelSpec) -> ReplayPatch | None:
    """Cut the window that holds most labelled pixels among a coarse grid of windows.

    None where each of them has pixels without truth, or none with a label.
    """
    shape = sample.labels.shape
    size = [min(n, -(-3 * patch // 4)) for n, patch in zip(shape, spec.patch_size, strict=True)]
    if math.prod(size) > _MAX_PIXELS:
        factor = (_MAX_PIXELS / math.prod(size)) ** (1 / len(size))
        size = [max(1, int(n * factor)) for n in size]
    starts = [sorted({0, (n - s) // 2, n - s}) for n, s in zip(shape, size, strict=True)]
    windows = [
        tuple(slice(start, start + s) for start, s in zip(corner, size, strict=True))
        for corner in np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, len(size)).tolist()
    ]
    windows = [window for window in windows if (sample.labels[window] >= 0).all()]
    window = max(windows, key=lambda place: int(np.count_nonzero(sample.labels[place])), default=None)
    if window is None or not sample.labels[window].any():
        return None
    image = network_input(sample, spec)[(slice(None), *window)]
    low, high = INTENSITY_RANGE
    if any(entry.scheme not in _SCALED for entry in spec.normalisation):
        low, high = float(image.min()), max(float(image.max()), float(image.min()) + 1e-3)
    if (image[1:] == image[0]).all():
        image = image[:1]
    levels = np.clip((image - low) * (255 / (high - low)), 0, 255).round().astype(np.uint8)
    labels = sample.labels[window].astype(np.uint16)
    if spec.task == "instances":
        compact = np.unique(np.append(0, sample.labels[window]), return_inverse=True)[1]
        labels = compact[1:].reshape(labels.shape).astype(np.uint16)
    return ReplayPatch(levels, labels, sample.id, sample.modality, (low, high))


def _compressed(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an ``.npz``, bounded before anything is unpacked."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if (
            len(members) > 2 * _MAX_PATCHES * len(PARTS) + 1
            or sum(m.file_size for m in members) > _MAX_UNPACKED
        ):
            raise BundleError(f"{path} unpacks to more than a replay pack may hold.")
        return {m.filename.removesuffix(".npy"): parse_npy(archive.read(m), m.filename) for m in members}


def parse_npy(data: bytes, name: str) -> NDArray[Any]:
    """Read one ``.npy``, whose header must say just the size that the file has; else `ValueError`."""
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError(f"{name} is no .npy of version 1.0")
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
    content = data[file.tell() :]
    if dtype.hasobject or fortran_order or math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name} says {dtype} {shape} and holds {len(content)} bytes")
    return np.frombuffer(content, dtype).reshape(shape)


def _patches(arrays: dict[str, NDArray[Any]], rows: list[dict[str, Any]], part: str) -> list[ReplayPatch]:
    patches = []
    for number, row in enumerate(rows):
        image, labels = (arrays.pop(f"{part}_{number:03d}_{name}") for name in ("image", "labels"))
        if image.dtype != np.uint8 or labels.dtype != np.uint16 or labels.ndim not in (2, 3):
            raise BundleError(f"Replay patch {part} {number} holds {image.dtype} and {labels.dtype} arrays.")
        if image.shape[1:] != labels.shape or not image.size:
            raise BundleError(f"Replay patch {part} {number}: image {image.shape}, labels {labels.shape}.")
        span = row.get("range", INTENSITY_RANGE) if isinstance(row, dict) else INTENSITY_RANGE
        low, high = (float(end) for end in span)
        if not -_LARGEST_INTENSITY < low < high < _LARGEST_INTENSITY:
            raise BundleError(f"Replay patch {part} {number} spans intensities from {low} to {high}.")
        patches.append(ReplayPatch(image, labels, str(row["id"]), str(row["modality"]), (low, high)))
    return patches
