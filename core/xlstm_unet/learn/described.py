"""What a data set in nnU-Net's raw layout says of itself: ``dataset.json``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from xlstm_unet.errors import DatasetError
from xlstm_unet.spec import Label, Normalisation, Region

FILE = "dataset.json"
MAX_BYTES = 64 << 20
IGNORED = -1
"""Label of voxels whose truth is not known, after reading."""

_SCHEMES: dict[str, Any] = {
    "ct": "ct",
    "nonorm": "none",
    "rescale_to_0_1": "rescale01",
    "rgb_to_0_1": "rgb01",
    "zscore": "zscore",
}
_COLOURS = ((80, 200, 255), (255, 140, 60), (140, 220, 90), (220, 110, 220), (250, 220, 80), (90, 130, 255))


@dataclass(frozen=True)
class Description:
    """Channels and labels of a data set.

    Parameters
    ----------
    channels
        Names of the channels, in order.
    labels
        Values 1 to n.
    regions
        Labels learned together, where the data set says so.
    ignored
        Value of voxels whose truth is not known; None where there is none.
    """

    channels: tuple[str, ...]
    labels: tuple[Label, ...]
    regions: tuple[Region, ...] = ()
    ignored: int | None = None

    def schemes(self) -> tuple[str, ...]:
        """Normalisation scheme of each channel: by its name, z-scores for names that are not special."""
        return tuple(_SCHEMES.get(name.casefold(), "zscore") for name in self.channels)


def labels_called(names: dict[int, str]) -> tuple[Label, ...]:
    """Return labels 1 to the largest value, in well separated colours."""
    return tuple(
        Label(
            value=value,
            name=names.get(value, f"label {value}"),
            color=_COLOURS[(value - 1) % len(_COLOURS)],
        )
        for value in range(1, max(names) + 1)
    )


def read_description(folder: Path) -> Description | None:
    """Read ``dataset.json`` of a folder; None where there is none.

    Raises
    ------
    DatasetError
        Naming the field that is wrong.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path} has {path.stat().st_size} bytes, expected a small JSON file.")
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}.") from error
    if not isinstance(fields, dict):
        raise DatasetError(f"{path} holds no JSON object.")
    try:
        return _description(path, fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise DatasetError(f"{path}: {first['msg']} (found {first['input']!r:.80}).") from error


def normalisations(schemes: tuple[str, ...]) -> tuple[Normalisation, ...]:
    """Return one entry a channel, without the numbers that only the data can give (CT)."""
    return tuple(Normalisation.model_validate({"scheme": scheme}) for scheme in schemes)


def _description(path: Path, fields: dict[str, Any]) -> Description:
    channels = fields.get("channel_names", fields.get("modality"))
    if not isinstance(channels, dict) or sorted(channels) != sorted(str(n) for n in range(len(channels))):
        raise DatasetError(
            f"{path}: channel_names is {channels!r:.100}, expected names by number from 0.",
            'For example {"0": "T1", "1": "T2"}.',
        )
    named = fields.get("labels")
    if not isinstance(named, dict) or not named or any(key.isdigit() for key in named):
        raise DatasetError(
            f"{path}: labels is {named!r:.100}, expected values by name.",
            'For example {"background": 0, "liver": 1}; nnUNetv2_convert_MSD_dataset converts older files.',
        )
    values = {name: _values(path, name, value) for name, value in named.items()}
    ignored = values.pop("ignore", None)
    plain = {found[0]: name for name, found in values.items() if len(found) == 1 and found != (0,)}
    largest = max((value for found in values.values() for value in found), default=0)
    if not largest:
        raise DatasetError(f"{path}: labels names nothing but background.")
    if ignored is not None and ignored != (largest + 1,):
        raise DatasetError(
            f"{path}: labels: ignore is {named['ignore']!r}, expected {largest + 1}, the highest."
        )
    regions = _regions(path, fields, values)
    painted = {region.paint: region.name for region in regions}
    return Description(
        channels=tuple(str(channels[str(number)]) for number in range(len(channels))),
        labels=labels_called({largest: f"label {largest}"} | plain | painted),
        regions=regions,
        ignored=None if ignored is None else ignored[0],
    )


def _values(path: Path, name: str, value: Any) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, list) else (value,)
    if not values or any(type(number) is not int or number < 0 for number in values):
        raise DatasetError(f"{path}: labels: {name} is {value!r}, expected a whole number or a list of them.")
    return values


def _regions(path: Path, fields: dict[str, Any], values: dict[str, tuple[int, ...]]) -> tuple[Region, ...]:
    """Return the regions where a label is a list of several values; else none."""
    if all(len(found) == 1 for found in values.values()):
        return ()
    wanted = {name: found for name, found in values.items() if found != (0,)}
    order = fields.get("regions_class_order")
    if not isinstance(order, list) or len(order) != len(wanted):
        raise DatasetError(
            f"{path}: regions_class_order is {order!r:.100}, expected the label of each of "
            f"{len(wanted)} regions."
        )
    return tuple(
        Region(name=name, values=found, paint=paint)
        for (name, found), paint in zip(wanted.items(), order, strict=True)
    )
