"""Small real images that come with the package, with their true labels."""

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
    model
        Embedded model that it is for.
    suffix
        Of its files.
    """

    name: str
    description: str
    model: str = "nuclei"
    suffix: str = ".png"

    @property
    def dimension(self) -> int:
        """2 for pictures, 3 for volumes."""
        return 2 if self.suffix == ".png" else 3

    @property
    def image(self) -> Path:
        """PNG, uint8, (Y, X) gray or (Y, X, 3) RGB; or a NIfTI volume."""
        return _FOLDER / "images" / f"{self.name}{self.suffix}"

    @property
    def labels(self) -> Path:
        """PNG, uint16 (Y, X): 0 background, 1 to n one nucleus each; or NIfTI, uint8: classes."""
        return _FOLDER / "labels" / f"{self.name}{self.suffix}"


SAMPLES = (
    Sample("fluorescence_dense", "fluorescent nuclei, small and bright"),
    Sample("fluorescence_dim", "fluorescent nuclei, dim and touching"),
    Sample("fluorescence_large", "fluorescent nuclei, large"),
    Sample("histology_purple", "stained tissue, purple on purple"),
    Sample("histology_white", "stained tissue, purple on white"),
    Sample("brightfield_smear", "smear in bright field, nuclei inside gray cells"),
    Sample("hippocampus_mri", "T1 MRI around one hippocampus, 1 mm", "hippocampus-mri", ".nii.gz"),
)
"""All bundled images; none was used to train an embedded model."""
