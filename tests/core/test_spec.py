from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from xlstm_unet.spec import ModelSpec

FIELDS: dict[str, Any] = {
    "name": "brain",
    "dimension": 3,
    "task": "classes",
    "labels": [{"value": v, "name": n} for v, n in enumerate(("edema", "core", "enhancing"), 1)],
    "network": {
        "variant": "bot",
        "features": [4, 8],
        "kernels": [[3, 3, 3]] * 2,
        "strides": [[1, 1, 1], [2, 2, 2]],
        "encoder_blocks": [1, 1],
        "decoder_blocks": [1],
    },
    "normalisation": [{"scheme": "zscore", "masked": True}],
    "patch_size": [16, 16, 16],
}
WHOLE = {"name": "whole tumour", "values": [1, 2, 3], "paint": 1}
CORE = {"name": "tumour core", "values": [2, 3], "paint": 2}


def test_version_1_takes_the_defaults_of_later_fields() -> None:
    old = FIELDS | {"format_version": 1, "normalisation": [{"scheme": "zscore"}]}
    spec = ModelSpec.model_validate(old)
    assert spec.format_version == 2
    assert (spec.regions, spec.folds, spec.pipeline, spec.transpose) == ((), 1, "own", (0, 1, 2))
    assert spec.orientation is spec.mirror_axes is None
    assert ModelSpec.model_validate_json(spec.model_dump_json()) == spec


def test_version_1_has_no_later_fields() -> None:
    with pytest.raises(ValidationError, match="folds is a field of format version 2"):
        ModelSpec.model_validate(FIELDS | {"format_version": 1, "folds": 1})


def test_outputs_are_the_regions() -> None:
    assert ModelSpec(**FIELDS).output_channels == 4
    assert ModelSpec(**FIELDS, regions=[WHOLE, CORE]).output_channels == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"regions": [WHOLE | {"values": [4]}]}, "holds or paints 4, expected labels from 1 to 3"),
        ({"regions": [WHOLE | {"paint": 5}]}, "holds or paints 5"),
        ({"regions": [WHOLE | {"values": []}]}, "at least 1 item"),
        ({"regions": [WHOLE], "task": "instances"}, "regions are given for the task instances"),
        ({"pipeline": "nnunet", "task": "instances"}, "pipeline is nnunet with the task instances"),
        ({"folds": 0}, "greater than or equal to 1"),
        ({"transpose": [0, 1, 1]}, "expected the axes 0, 1 and 2"),
        ({"mirror_axes": [0, 3]}, "expected some of 0 to 2"),
        ({"mirror_axes": [0, 0]}, "expected some of 0 to 2"),
        ({"orientation": "SAX"}, "orientation"),
        ({"orientation": "SAI"}, "expected one of L and R"),
        ({"normalisation": [{"scheme": "ct", "masked": True}]}, "masked is true with scheme ct"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSpec.model_validate(FIELDS | change)
