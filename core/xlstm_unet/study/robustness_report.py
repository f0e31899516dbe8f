"""Tables and plot of a robustness study."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from xlstm_unet.files import atomic_path
from xlstm_unet.study.report import table, write_text


def write_markdown(path: Path, result: dict[str, Any]) -> None:
    """Write the tables of a result of `measure_robustness`.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    tiles, background = result["tiles"], result["background"]
    small, large = tiles["sizes"]
    agreement = [(tiles["images"], tiles["f1_50"], tiles["worst"])]
    crops = [
        (modality, *(counts[name] for name in ("crops", "with objects", "objects")))
        for modality, counts in background["real"].items()
    ]
    write_text(
        path,
        f"# Robustness of {result['model']} on {result['dataset']}, {result['split']}",
        f"{result['images']} images; F1 at IoU .5, means over images with 95 % bootstrap intervals.",
        "## Scale",
        "Image and truth resampled by a factor, with the object diameter estimated and without.",
        table(
            ("Factor", "Diameter estimated", "Images as they are"),
            [
                (f"{row['factor']:g}", row["estimated"]["f1_50"], row["as they are"]["f1_50"])
                for row in result["scale"]
            ],
        ),
        "## Content",
        table(
            ("Change", "Strength", "F1", "F1 lost"),
            [(row["kind"], row["strength"], row["f1_50"], row["lost"]) for row in result["content"]],
        ),
        "## Tiles",
        f"Agreement (F1) of tiles of {small} with tiles of {large} pixels, on images larger than {small}.",
        table(("Images", "F1", "Worst image"), agreement),
        "## Nothing to find",
        "The largest squares without any labelled object (64 to 256 pixels a side), one an image.",
        table(("Images", "Crops", "Crops with objects found", "Objects found"), crops),
        table(("Made-up image", "Objects found"), list(background["made up"].items())),
    )


def draw(path: Path, result: dict[str, Any]) -> None:
    """Draw F1 over the scale of the images, where matplotlib is installed.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    if find_spec("matplotlib") is None:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    factors = [row["factor"] for row in result["scale"]]
    for name, colour in (("estimated", "tab:blue"), ("as they are", "tab:orange")):
        intervals = [row[name]["f1_50"] for row in result["scale"]]
        label = "diameter estimated" if name == "estimated" else "images as they are"
        axes.plot(factors, [i.mean for i in intervals], marker="o", color=colour, label=label)
        axes.fill_between(
            factors, [i.low for i in intervals], [i.high for i in intervals], color=colour, alpha=0.15
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(factors, [f"{factor:g}" for factor in factors])
    axes.set(xlabel="images resampled by", ylabel="F1 at IoU .5", ylim=(0, 1))
    axes.set_title(f"{result['model']} on {result['dataset']} ({result['split']}, {result['images']} images)")
    axes.legend()
    axes.grid(alpha=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
