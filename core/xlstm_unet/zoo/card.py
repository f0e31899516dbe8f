"""The model card: ``README.md`` of a bundle, with the front matter that model hubs read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.card_text import FRONT, LEAD, CardText

TAG = "xlstm-unet"
"""What models of this format are found by on the Hub."""

_CITATION = (
    "Chen T et al., xLSTM-UNet can be an effective 2D & 3D medical image segmentation backbone with "
    "Vision-LSTM (ViL) better than its Mamba counterpart, arXiv:2407.01530 (2024)."
)

_LICENCES = {"apache-2.0", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-sa-4.0", "cc0-1.0", "mit"}


@dataclass(frozen=True)
class CardFacts:
    """What a model card says beyond the specification.

    Parameters
    ----------
    data
        What the model was trained on, in sentences.
    licence
        SPDX identifier such as ``cc0-1.0``, or ``other``.
    scores
        Score by name, as measured.
    scores_on
        What the scores were measured on.
    scores_command
        Command that reproduces the scores.
    limits
        One sentence each: what the model cannot do.
    citations
        Papers to cite, besides the network's.
    lineage
        One sentence each: which model this one was made from, and how.
    base_model
        ``owner/name`` on the Hub of the model that this one was made from; empty where there is none.
    """

    data: str
    licence: str = "other"
    scores: Mapping[str, float] = field(default_factory=dict)
    scores_on: str = ""
    scores_command: str = ""
    limits: tuple[str, ...] = ()
    citations: tuple[str, ...] = ()
    lineage: tuple[str, ...] = ()
    base_model: str = ""


def model_card(spec: ModelSpec, facts: CardFacts) -> str:
    """Return the card as Markdown with YAML front matter; see `card_text` for the mark at its end."""
    return str(card_parts(spec, facts))


def card_parts(spec: ModelSpec, facts: CardFacts, *, own_scores: bool = True) -> CardText:
    """Return the card in its parts; without a table of scores where they are told elsewhere."""
    lead = f"# {spec.name}\n\n{spec.description or 'A segmentation model.'}\n\n{_what_it_takes(spec)}"
    parts = {
        FRONT: _front_matter(spec, facts),
        LEAD: lead,
        "Use": f"```\nxlstm-unet segment IMAGES --model {spec.name} --output results\n```\n\n"
        f'```python\nimport xlstm_unet as xu\n\nlabels = xu.load("{spec.name}")(image).labels\n```',
        "Training data": f"{facts.data}\n\nLicence: {facts.licence} (see LICENSE).",
        "Scores": _scores(facts) if own_scores else "",
        "Lineage": _bullets(facts.lineage),
        "Limits": _bullets((*facts.limits, "Not a medical device: not for diagnosis or treatment.")),
        "Please cite": _bullets((_CITATION, *facts.citations)),
    }
    return CardText.written({name: text for name, text in parts.items() if text})


def known_licence(text: str) -> str:
    """Return the identifier that hubs know, if ``text`` begins with one of the usual ones; else ``other``."""
    word = text.split(maxsplit=1)[0].lower() if text.strip() else ""
    return word if word in _LICENCES else "other"


def _front_matter(spec: ModelSpec, facts: CardFacts) -> str:
    fields: dict[str, Any] = {
        "license": facts.licence,
        "library_name": "xlstm-unet",
        "pipeline_tag": "image-segmentation",
        "tags": [TAG, "image-segmentation", f"{spec.dimension}d", f"{spec.task}"],
    }
    if facts.base_model:
        fields["base_model"] = facts.base_model
    if facts.scores:
        fields["model-index"] = [{"name": spec.name, "results": [_hub_result(facts)]}]
    # JSON values are YAML values.
    return "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())


def _hub_result(facts: CardFacts) -> dict[str, Any]:
    """Scores in the form that the Hub shows beside a model."""
    return {
        "task": {"type": "image-segmentation"},
        "dataset": {"type": "other", "name": facts.scores_on or "see the card"},
        "metrics": [
            {
                "type": re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_"),
                "name": name,
                "value": round(value, 4),
            }
            for name, value in facts.scores.items()
        ],
    }


def _what_it_takes(spec: ModelSpec) -> str:
    channels = f"{spec.input_channels} channel{'s' if spec.input_channels > 1 else ''}"
    if spec.channel_names:
        channels += f" ({', '.join(spec.channel_names)})"
    if spec.accepts_gray and spec.input_channels > 1:
        channels += "; gray images too"
    lines = [
        f"- Images: {spec.dimension}D, {channels}",
        f"- Finds: {', '.join(label.name for label in spec.labels)} "
        f"({'single objects' if spec.task == 'instances' else 'one region per label'})",
    ]
    if spec.spacing is not None:
        lines.append(f"- Works at {' x '.join(f'{s:g}' for s in spec.spacing)} {spec.spacing_unit} per voxel")
    if spec.object_diameter is not None:
        lines.append(f"- Typical object: {spec.object_diameter:g} pixels across")
    if spec.field_of_view is not None:
        lines.append(f"- Expects {spec.field_of_view.description}")
    return "\n".join(lines)


def _scores(facts: CardFacts) -> str:
    if not facts.scores:
        return ""
    rows = [f"| {name} | {value:.3f} |" for name, value in facts.scores.items()]
    text = "\n".join(("| Score | Value |", "|---|---|", *rows))
    if facts.scores_on:
        text = f"Measured on {facts.scores_on}.\n\n{text}"
    if facts.scores_command:
        text += f"\n\n```\n{facts.scores_command}\n```"
    return text


def _bullets(lines: tuple[str, ...]) -> str:
    return "\n".join(f"- {line}" for line in lines)
