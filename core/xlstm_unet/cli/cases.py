"""What there is to segment: single images, or sets of files with one channel each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xlstm_unet.errors import ImageError, OutputError

if TYPE_CHECKING:
    from xlstm_unet.images import Image
    from xlstm_unet.spec import ModelSpec

OVERLAY_ENDING = "_overlay"

_CHANNEL = re.compile(r"(.+)_(\d{4})")
_VOLUMES = (".nii", ".nii.gz", ".nrrd", ".nhdr")


@dataclass(frozen=True)
class Case:
    """One image.

    Parameters
    ----------
    paths
        Its file, folder or archive; or a file for each channel.
    name
        Its name without ending and channel number.
    """

    paths: tuple[Path, ...]
    name: str

    @property
    def is_volume(self) -> bool:
        """Whether it comes from a format of volumes, so that results are NIfTI."""
        from xlstm_unet.images import image_suffix

        first = self.paths[0]
        return first.is_dir() or first.suffix.lower() == ".zip" or image_suffix(first) in _VOLUMES

    def read(self, axes: str | None, series: str | None) -> Image:
        """Read it.

        Raises
        ------
        ImageError
            If a file cannot be used, or channels do not lie on one grid.
        """
        from xlstm_unet.images import join_channels, read_image

        images = [read_image(path, axes, series=series) for path in self.paths]
        return images[0] if len(images) == 1 else join_channels(images)


def find_cases(paths: list[Path], spec: ModelSpec) -> list[Case]:
    """List the images, leaving out overlays that an earlier run put among them.

    For a model of several channels, files called ``<name>_0000``, ``<name>_0001``, ... are one image.

    Raises
    ------
    ImageError
        If there is no image, or a channel of one is missing.
    OutputError
        If two images would write the same result.
    """
    from xlstm_unet.images import image_stem, list_images

    files = list_images(paths)
    stems = {image_stem(path) for path in files}
    files = [path for path in files if path in paths or not _is_overlay(path, stems)]
    cases = _joined(files, spec) if spec.input_channels > 1 else [_single(path) for path in files]
    seen: dict[str, Case] = {}
    for case in cases:
        if case.name in seen:
            raise OutputError(
                f"{seen[case.name].paths[0]} and {case.paths[0]} would both write {case.name}_labels.",
                "Segment them in two runs with different --output folders.",
            )
        seen[case.name] = case
    return cases


def _single(path: Path) -> Case:
    from xlstm_unet.images import image_stem

    return Case((path,), path.resolve().name if path.is_dir() else image_stem(path))


def _joined(files: list[Path], spec: ModelSpec) -> list[Case]:
    """Put the channels of an image together."""
    cases: list[Case] = []
    groups: dict[tuple[Path, str], dict[str, Path]] = {}
    for path in files:
        single = _single(path)
        match = _CHANNEL.fullmatch(single.name)
        if match is None or path.is_dir():
            cases.append(single)
        else:
            groups.setdefault((path.parent, match[1]), {})[match[2]] = path
    wanted = [f"{number:04d}" for number in range(spec.input_channels)]
    for (_, name), channels in groups.items():
        if sorted(channels) != wanted:
            names = f" ({', '.join(spec.channel_names)})" if spec.channel_names else ""
            raise ImageError(
                f"{name}: files of the channels {', '.join(sorted(channels))}, model {spec.name} takes "
                f"{', '.join(wanted)}{names}.",
                f"Name the files {name}_0000, {name}_0001, ... in the order of the channels.",
            )
        cases.append(Case(tuple(channels[number] for number in wanted), name))
    return cases


def _is_overlay(path: Path, stems: set[str]) -> bool:
    stem = path.stem
    return stem.endswith(OVERLAY_ENDING) and stem.removesuffix(OVERLAY_ENDING) in stems
