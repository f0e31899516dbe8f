"""Small real microscopy images that come with the package, with their true labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """One bundled image.

    Parameters
    ----------
    name
        Short name, also the file's stem.
    description
        What the image shows.
    """

    name: str
    description: str

    @property
    def image(self) -> Path:
        """PNG, uint8, (Y, X) gray or (Y, X, 3) RGB."""
        return _FOLDER / "images" / f"{self.name}.png"

    @property
    def labels(self) -> Path:
        """PNG, uint16 (Y, X): 0 background, 1 to n one nucleus each."""
        return _FOLDER / "labels" / f"{self.name}.png"


SAMPLES = (
    Sample("fluorescence_dense", "fluorescent nuclei, small and bright"),
    Sample("fluorescence_dim", "fluorescent nuclei, dim and touching"),
    Sample("fluorescence_large", "fluorescent nuclei, large"),
    Sample("histology_purple", "stained tissue, purple on purple"),
    Sample("histology_white", "stained tissue, purple on white"),
    Sample("brightfield_smear", "smear in bright field, nuclei inside gray cells"),
)
"""All bundled images; none was used to train an embedded model."""
