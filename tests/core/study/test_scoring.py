"""Running methods over samples, and their means."""

from __future__ import annotations

import numpy as np
import pytest

from xlstm_unet.errors import DatasetError, ModelError
from xlstm_unet.learn import Dataset
from xlstm_unet.measure import bootstrap_interval
from xlstm_unet.nets import build_network
from xlstm_unet.progress import Progress
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import ModelSpec
from xlstm_unet.study.scoring import average, by_modality, model_method, score_method, some_samples


def test_truth_scores_one_and_nothing_scores_zero(data_set: Dataset) -> None:
    samples = some_samples(data_set, "val")
    truth = {id(sample.image): sample.labels for sample in samples}
    seen: list[Progress] = []
    perfect = score_method(lambda image: truth[id(image)], samples, on_progress=seen.append)
    nothing = score_method(lambda image: np.zeros(image.label_shape, np.int32), samples)
    assert [step.done for step in seen] == [1, 2]
    assert average(perfect)["overall"]["ap_50_95"].mean == 1
    gain = average(perfect, nothing)
    assert gain["overall"]["f1_50"].low == 1
    assert gain["modalities"]["histology"]["images"] == 1


def test_modalities_average_their_own_images(fluorescence: Dataset) -> None:
    rows = score_method(lambda image: np.ones(image.label_shape, np.int32), fluorescence.samples)
    assert by_modality(rows) == {"fluo_large": [0], "fluo_small": [1]}
    means = average(rows)
    values = [row.scores["pq"] for row in rows]
    assert means["overall"]["pq"] == bootstrap_interval(values)
    assert means["modalities"]["fluo_small"]["pq"].mean == values[1]


def test_diameter_none_takes_images_as_they_are(
    segmenter: Segmenter, spec: ModelSpec, data_set: Dataset
) -> None:
    image = data_set.samples[0].image
    expected = segmenter(image, diameter=spec.object_diameter).labels
    np.testing.assert_array_equal(model_method(segmenter, diameter="none")(image), expected)
    np.testing.assert_array_equal(
        model_method(segmenter, diameter=30.0)(image), segmenter(image, diameter=30.0).labels
    )


def test_empty_split_and_models_of_classes_are_refused(data_set: Dataset, spec: ModelSpec) -> None:
    with pytest.raises(DatasetError, match="test"):
        some_samples(data_set, "test")
    classes = spec.model_copy(update={"task": "classes"})
    with pytest.raises(ModelError, match="classes"):
        model_method(Segmenter(classes, build_network(classes), device="cpu"))
