"""Model cards: front matter that hubs parse, and everything a user should know."""

from __future__ import annotations

import json

import pytest

from xlstm_unet.spec import FieldOfView, ModelSpec
from xlstm_unet.zoo.card import CardFacts, known_licence, model_card

FACTS = CardFacts(
    data="419 images: all kinds.",
    licence="cc0-1.0",
    scores={"F1 at IoU .5": 0.9123},
    scores_on="the test split",
    scores_command="xlstm-unet evaluate --model tiny",
    limits=("Not tried on electron microscopy.",),
    citations=("Caicedo JC et al. 2019",),
)


def test_front_matter_parses_line_by_line(spec: ModelSpec) -> None:
    card = model_card(spec, FACTS)
    opening, matter, _ = card.split("---\n", 2)
    assert opening == ""
    fields = {
        name: json.loads(value) for name, _, value in (line.partition(": ") for line in matter.splitlines())
    }
    assert fields["license"] == "cc0-1.0"
    assert fields["library_name"] == "xlstm-unet"
    assert "xlstm-unet" in fields["tags"]


@pytest.mark.parametrize(
    "text",
    [
        "419 images",
        "| F1 at IoU .5 | 0.912 |",
        "the test split",
        "xlstm-unet evaluate --model tiny",
        "Not tried on electron microscopy.",
        "Not a medical device",
        "Caicedo",
        "3 channels; gray images too",
        "Typical object: 20 pixels",
        "nucleus (single objects)",
    ],
)
def test_the_card_says(spec: ModelSpec, text: str) -> None:
    assert text in model_card(spec, FACTS)


def test_spacing_and_field_of_view(spec: ModelSpec) -> None:
    view = FieldOfView(description="a crop", extent_mm=(30.0, 30.0), max_extent_mm=(50.0, 50.0))
    card = model_card(
        spec.model_copy(update={"spacing": (0.5, 0.25), "spacing_unit": "µm", "field_of_view": view}), FACTS
    )
    assert "0.5 x 0.25 µm per voxel" in card
    assert "Expects a crop" in card


def test_nothing_measured_means_no_table(spec: ModelSpec) -> None:
    assert "## Scores" not in model_card(spec, CardFacts(data="none"))


@pytest.mark.parametrize(
    ("text", "licence"),
    [("CC0-1.0 (BBBC038)", "cc0-1.0"), ("MIT", "mit"), ("mine", "other"), ("", "other"), ("  ", "other")],
)
def test_known_licence(text: str, licence: str) -> None:
    assert known_licence(text) == licence
