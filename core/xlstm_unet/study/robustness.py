"""What a model loses when images change in scale or content, and whether it finds what is not there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xlstm_unet.learn import Dataset, Sample
from xlstm_unet.measure import bootstrap_interval, score_instances
from xlstm_unet.nets import Network
from xlstm_unet.progress import Cancel, OnProgress, Progress, check_cancelled
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.changes import CHANGES, changed, empty_crops, made_up_backgrounds, rescaled
from xlstm_unet.study.report import machine, write_json
from xlstm_unet.study.robustness_report import draw, write_markdown
from xlstm_unet.study.scoring import by_modality, model_method, score_method, some_samples

FACTORS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0)
TILES = (256, 1024)


def measure_robustness(
    spec: ModelSpec,
    network: Network,
    dataset: Dataset,
    split: str,
    folder: Path,
    *,
    max_images: int | None = None,
    factors: Sequence[float] = FACTORS,
    device: str = "auto",
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Measure and write ``robustness.json``, ``robustness.md`` and, with matplotlib, ``robustness.png``.

    Parameters
    ----------
    spec, network
        A model of instances.
    dataset, split
        Samples to change.
    folder
        Where the report is written.
    max_images
        Most images of each modality, evenly over all.
    factors
        Factors that images are resampled by.
    device
        Where the network runs.
    on_progress, cancel
        Called for every image.

    Returns
    -------
    dict
        ``scale``: F1 by factor, with and without the estimate of the diameter; ``content``: F1 and its loss
        by change; ``tiles``: agreement of small and large tiles; ``background``: objects found where there
        are none.

    Raises
    ------
    DatasetError
        If there is no sample.
    ModelError
        If the model does not find instances.
    OutputError
        If the report cannot be written.
    """
    samples = _spread(some_samples(dataset, split), max_images)
    study = _Study(Segmenter(spec, network, device=device), samples, on_progress, cancel)
    tiled = [Segmenter(spec, network, device=device, tile=tile) for tile in TILES]
    result = {
        "model": spec.name,
        "dataset": dataset.name,
        "split": split,
        "images": len(samples),
        "machine": machine(study.segmenter.device),
        "scale": study.scale(factors),
        "content": study.content(),
        "tiles": study.tiles(tiled),
        "background": study.background(),
    }
    write_json(folder / "robustness.json", result)
    write_markdown(folder / "robustness.md", result)
    draw(folder / "robustness.png", result)
    return result


class _Study:
    """One model on one set of samples."""

    def __init__(
        self,
        segmenter: Segmenter,
        samples: Sequence[Sample],
        on_progress: OnProgress | None,
        cancel: Cancel | None,
    ) -> None:
        self.segmenter, self.samples = segmenter, samples
        self.on_progress, self.cancel = on_progress, cancel
        self.estimating = model_method(segmenter, diameter="auto", cancel=cancel)
        self.as_they_are = model_method(segmenter, diameter="none", cancel=cancel)

    def scale(self, factors: Sequence[float]) -> list[dict[str, Any]]:
        """Score images of every scale, with and without the estimate of the diameter."""
        rows = []
        for factor in factors:
            samples = [rescaled(sample, factor) for sample in self.samples]
            scores = {}
            for name, method in (("estimated", self.estimating), ("as they are", self.as_they_are)):
                found = score_method(
                    method,
                    samples,
                    stage=f"scale {factor:g}, {name}",
                    on_progress=self.on_progress,
                    cancel=self.cancel,
                )
                values = [row.scores["f1_50"] for row in found]
                scores[name] = {
                    "f1_50": bootstrap_interval(values),
                    "modalities": {
                        modality: float(np.mean([values[i] for i in chosen]))
                        for modality, chosen in by_modality(found).items()
                    },
                }
            rows.append({"factor": factor, **scores})
        return rows

    def content(self) -> list[dict[str, Any]]:
        """Score changed images, and what is lost against the unchanged ones."""
        clean = self._f1(self.samples, "unchanged")
        rows: list[dict[str, Any]] = [
            {"kind": "unchanged", "strength": "", "f1_50": bootstrap_interval(clean), "lost": None}
        ]
        for change in CHANGES:
            f1 = self._f1([changed(sample, change) for sample in self.samples], change.kind)
            rows.append(
                {
                    "kind": change.kind,
                    "strength": change.strength,
                    "f1_50": bootstrap_interval(f1),
                    "lost": bootstrap_interval(clean, f1),
                }
            )
        return rows

    def tiles(self, tiled: Sequence[Segmenter]) -> dict[str, Any]:
        """Compare small with large tiles on images that need several small ones."""
        large = [s for s in self.samples if max(s.labels.shape) > TILES[0]]
        methods = [model_method(segmenter, diameter="none", cancel=self.cancel) for segmenter in tiled]
        agreement = []
        for done, sample in enumerate(large):
            small, whole = (method(sample.image) for method in methods)
            agreement.append(score_instances(small, whole).f1_50)
            self._report("tiles", done + 1, len(large))
        return {
            "sizes": list(TILES),
            "images": len(large),
            "f1_50": bootstrap_interval(agreement) if agreement else None,
            "worst": min(agreement, default=None),
        }

    def background(self) -> dict[str, Any]:
        """Count objects found in crops of real background and in made-up images without any."""
        crops = list(empty_crops(self.samples))
        found: dict[str, list[int]] = {}
        wrong = []
        for done, (modality, image) in enumerate(crops):
            count = self._count(image)
            found.setdefault(modality, []).append(count)
            if count:
                wrong.append({"image": image.name, "side": image.spatial_shape[-1], "objects": count})
            self._report("background", done + 1, len(crops))
        return {
            "real": {
                modality: {
                    "crops": len(counts),
                    "with objects": sum(map(bool, counts)),
                    "objects": sum(counts),
                }
                for modality, counts in sorted(found.items())
            },
            "wrong": wrong,
            "made up": {image.name: self._count(image) for image in made_up_backgrounds()},
        }

    def _f1(self, samples: Sequence[Sample], stage: str) -> list[float]:
        rows = score_method(
            self.estimating, samples, stage=stage, on_progress=self.on_progress, cancel=self.cancel
        )
        return [row.scores["f1_50"] for row in rows]

    def _count(self, image: Any) -> int:
        return int(np.count_nonzero(np.unique(self.estimating(image))))

    def _report(self, stage: str, done: int, total: int) -> None:
        check_cancelled(self.cancel)
        if self.on_progress is not None:
            self.on_progress(Progress(stage, done, total))


def _spread(samples: Sequence[Sample], most: int | None) -> list[Sample]:
    """At most so many samples of each modality, evenly over all."""
    if most is None:
        return list(samples)
    kept = []
    for modality in sorted({sample.modality for sample in samples}):
        group = [sample for sample in samples if sample.modality == modality]
        chosen = np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int)
        kept += [group[i] for i in chosen]
    return kept
