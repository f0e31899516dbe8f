"""Make ``docs/demo.png`` of what ``make demo`` wrote: ``python docs/make_picture.py demo-output``."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from xlstm_unet.samples import SAMPLES

SIDE, GAP, COLUMNS = 256, 4, 3


def main(folder: Path) -> None:
    """Put the overlays of the microscopy images side by side, each shrunk to a square of `SIDE` pixels."""
    samples = [sample for sample in SAMPLES if sample.model == "nuclei"]
    rows = -(-len(samples) // COLUMNS)
    size = (COLUMNS * (SIDE + GAP) - GAP, rows * (SIDE + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for i, sample in enumerate(samples):
        with Image.open(folder / f"{sample.name}_overlay.png") as overlay:
            shown = overlay.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(shown, (i % COLUMNS * (SIDE + GAP), i // COLUMNS * (SIDE + GAP)))
    sheet.save(Path(__file__).with_name("demo.png"), optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
