"""The card of a fine-tuned model: its root's, and what the version was trained on."""

from __future__ import annotations

from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo.card import CardFacts, model_card
from xlstm_unet.zoo.versions_record import VersionRecord

TITLE = "## Fine-tuning"


def tuned_card(root_card: str, root: ModelSpec, record: VersionRecord) -> str:
    """Return the root's card under the version's name, with a section on the fine-tuning.

    The card names no image: it says how many corrections there were and gives their digests.
    """
    card = root_card or model_card(root, CardFacts(data="Not stated by the root model."))
    for before, after in (
        (f"# {root.name}\n", f"# {record.model}\n"),
        (f"--model {root.name} ", f"--model {record.model} "),
        (f'load("{root.name}")', f'load("{record.model}")'),
    ):
        card = card.replace(before, after)
    return card.rstrip("\n") + "\n\n" + _section(record) + "\n"


def _section(record: VersionRecord) -> str:
    counts = record.counts
    kinds = ", ".join(
        f"{counts[kind]} {kind}"
        for kind in ("added", "deleted", "reshaped", "split", "merged", "relabelled", "accepted")
        if counts.get(kind)
    )
    lines = [
        TITLE,
        "",
        f"Fine-tuned from `{record.root}` (SHA-256 {record.root_digest[:16]}) on a user's corrections of "
        f"{counts.get('images', 0)} images ({kinds or 'no objects'}): {record.steps} steps in "
        f"{record.seconds:.0f} s on {record.device}. {1 - record.root_share:.0%} of each weight is what was "
        f"learnt, {record.root_share:.0%} the root's. The scores above are the root's.",
        "",
        *(
            f"- {score['name']}: {score['before']:.3f} before, {score['after']:.3f} after "
            f"(change {score['low']:+.3f} to {score['high']:+.3f}, {score['count']} cases)"
            for score in record.scores.values()
            if score is not None
        ),
        f"- Verdict: {record.verdict}. {record.message}",
        f"- Corrections (SHA-256): {', '.join(one.digest[:16] for one in record.corrections)}",
        "- The images themselves are not part of this model.",
    ]
    return "\n".join(lines)
