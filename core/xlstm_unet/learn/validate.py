"""Scoring a network on whole validation images, and choosing the decoder's settings on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from xlstm_unet.learn.bank import network_input
from xlstm_unet.learn.config import Validation
from xlstm_unet.learn.dataset import Sample
from xlstm_unet.measure import mean_scores, score_instances
from xlstm_unet.nets import Network, inference_context, prepare
from xlstm_unet.progress import Cancel, check_cancelled
from xlstm_unet.segment.instances import decode_instances
from xlstm_unet.spec import Decoding, ModelSpec

MAX_PIXELS = 2048 * 2048
"""Of a larger image the middle is scored."""


@dataclass(frozen=True)
class Maps:
    """Output for one image: (foreground, distance) of instances, or the class of each pixel."""

    foreground: NDArray[np.float16] | None
    distance: NDArray[np.float16] | None
    classes: NDArray[np.uint16] | None


@dataclass(frozen=True)
class _Case:
    image: NDArray[np.float16]
    labels: NDArray[np.int32]
    modality: str


class Validator:
    """Validation images, prepared once.

    Parameters
    ----------
    samples
        Samples of the validation split; at most ``max_images`` are used, evenly over all.
    spec
        Model.
    device
        Where the network runs.
    max_images
        Most images used.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        spec: ModelSpec,
        device: torch.device,
        *,
        max_images: int,
        cancel: Cancel | None = None,
    ) -> None:
        self.spec = spec
        self.device = device
        self._cases = []
        chosen = np.linspace(0, len(samples) - 1, min(max_images, len(samples))).round().astype(int)
        for index in chosen:
            check_cancelled(cancel)
            sample = samples[index]
            window = _middle(sample.labels.shape, spec)
            self._cases.append(
                _Case(
                    image=network_input(sample, spec)[(slice(None), *window)].astype(np.float16),
                    labels=sample.labels[window],
                    modality=sample.modality,
                )
            )

    def predict(self, network: Network, *, cancel: Cancel | None = None) -> list[Maps]:
        """Run a network over all images."""
        fast = prepare(network, self.device)
        maps = []
        for case in self._cases:
            check_cancelled(cancel)
            with inference_context(self.device):
                logits = fast(torch.from_numpy(case.image).to(self.device).float()[None])[0]
                if self.spec.task == "instances":
                    inside = 1 - logits[:3].softmax(dim=0)[0]
                    maps.append(Maps(_half(inside), _half(logits[3].clamp(0, 1)), None))
                else:
                    maps.append(Maps(None, None, _labels(logits, self.spec)))
        return maps

    def scores(
        self, maps: Sequence[Maps], decoding: Decoding, *, cancel: Cancel | None = None
    ) -> dict[str, float]:
        """Score outputs, image by image.

        Returns
        -------
        dict
            ``score``, what decides which weights are kept: the average of F1 at IoU .5 and AP over .5 to .95
            (instances) or the mean Dice (classes), half as the mean over images and half as the mean over
            modalities. Beside it the means over images that it is made of, and each modality's.
        """
        rows = []
        for one, case in zip(maps, self._cases, strict=True):
            check_cancelled(cancel)
            rows.append(self._score(one, case, decoding, cancel))
        overall = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        parts = {}
        for modality in sorted({case.modality for case in self._cases}):
            inside = [row for row, case in zip(rows, self._cases, strict=True) if case.modality == modality]
            parts[modality] = float(np.mean([np.mean(list(row.values())) for row in inside]))
        score = (float(np.mean(list(overall.values()))) + float(np.mean(list(parts.values())))) / 2
        return {
            "score": score,
            **overall,
            **{f"score/{name}": value for name, value in parts.items() if name},
        }

    def choose_decoding(
        self, maps: Sequence[Maps], settings: Validation, *, cancel: Cancel | None = None
    ) -> Decoding:
        """Return the decoder settings with the best score, one setting after the other."""
        best = self.spec.decoding
        best_score = self.scores(maps, best, cancel=cancel)["score"]
        options = (
            ("seed_height", settings.seed_heights),
            ("threshold", settings.thresholds),
            ("min_size", settings.min_sizes),
        )
        for field, values in options:
            for value in values:
                candidate = best.model_copy(update={field: value})
                if candidate == best:
                    continue
                score = self.scores(maps, candidate, cancel=cancel)["score"]
                if score > best_score:
                    best, best_score = candidate, score
        return best

    def _score(self, maps: Maps, case: _Case, decoding: Decoding, cancel: Cancel | None) -> dict[str, float]:
        if maps.foreground is None or maps.distance is None:
            return {"dice": _mean_dice(maps.classes, case.labels, self.spec)}
        labels = decode_instances(
            maps.foreground.astype(np.float32),
            maps.distance.astype(np.float32),
            threshold=decoding.threshold,
            seed_height=decoding.seed_height,
            min_size=decoding.min_size,
            cancel=cancel,
        )
        scores = mean_scores([score_instances(labels, case.labels)])
        return {"f1_50": scores["f1_50"], "ap_50_95": scores["ap_50_95"]}


def _half(tensor: torch.Tensor) -> NDArray[np.float16]:
    return np.asarray(tensor.to(torch.float16).cpu().numpy())


def _middle(shape: tuple[int, ...], spec: ModelSpec) -> tuple[slice, ...]:
    """Middle window of an image that one forward pass can take."""
    if spec.network.channel_tokens:
        limits = spec.patch_size
    elif prod(shape) > MAX_PIXELS:
        side = int(MAX_PIXELS ** (1 / len(shape)))
        limits = (side,) * len(shape)
    else:
        return (slice(None),) * len(shape)
    starts = [max(0, (n - limit) // 2) for n, limit in zip(shape, limits, strict=True)]
    return tuple(slice(start, start + limit) for start, limit in zip(starts, limits, strict=True))


def _labels(logits: torch.Tensor, spec: ModelSpec) -> NDArray[np.uint16]:
    """Labels of one image: the likeliest, or regions painted one over the other."""
    if not spec.regions:
        return np.asarray(logits.argmax(dim=0).cpu().numpy().astype(np.uint16))
    inside = (logits > 0).cpu().numpy()
    labels = np.zeros(inside.shape[1:], dtype=np.uint16)
    for region, mask in zip(spec.regions, inside, strict=True):
        labels[mask] = region.paint
    return labels


def _mean_dice(predicted: NDArray[np.uint16] | None, true: NDArray[np.int32], spec: ModelSpec) -> float:
    """Dice averaged over labels, or regions, where the truth is known; 1 for one that neither has."""
    assert predicted is not None
    known = true >= 0
    groups = [region.values for region in spec.regions] or [(label.value,) for label in spec.labels]
    values = []
    for group in groups:
        ours, truth = np.isin(predicted, group) & known, np.isin(true, group)
        size = np.count_nonzero(ours) + np.count_nonzero(truth)
        values.append(2 * np.count_nonzero(ours & truth) / size if size else 1.0)
    return float(np.mean(values))
