"""What this project offers: the models in the package, and those that it has published on the Hub.

Maintainers write ``catalogue.json``: ``python -m xlstm_unet.zoo.catalogue`` lists the embedded models, with
``--publish OWNER`` it publishes them all and notes revisions and checksums.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from xlstm_unet.files import atomic_path
from xlstm_unet.zoo.bundle import FILE_LIMITS, read_spec
from xlstm_unet.zoo.card_text import CardText
from xlstm_unet.zoo.hub_cache import digests
from xlstm_unet.zoo.record import Sha256

CATALOGUE = Path(__file__).parent / "catalogue.json"
EMBEDDED = Path(__file__).parent / "embedded"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EmbeddedModel(_Entry):
    """A model that comes with the package."""

    name: str
    description: str
    dimension: int
    licence: str
    size_bytes: int
    files: dict[str, Sha256]


class PublishedModel(_Entry):
    """A model of this project on the Hub."""

    name: str
    repo: str
    revision: str
    published: str
    files: dict[str, Sha256]


class Catalogue(_Entry):
    """Content of ``catalogue.json``."""

    version: Literal[1] = 1
    embedded: tuple[EmbeddedModel, ...] = ()
    published: tuple[PublishedModel, ...] = ()


def read_catalogue(path: Path = CATALOGUE) -> Catalogue:
    """Read the catalogue that came with the package."""
    return Catalogue.model_validate_json(path.read_bytes())


@cache
def published() -> dict[str, PublishedModel]:
    """Return the published models by ``owner/name``."""
    return {model.repo: model for model in read_catalogue().published}


def describe_embedded(home: Path = EMBEDDED) -> tuple[EmbeddedModel, ...]:
    """Describe the embedded models as they lie there, by name."""
    models = []
    for folder in sorted(path for path in home.iterdir() if (path / "model.json").is_file()):
        spec = read_spec(folder)
        files = {name: folder / name for name in FILE_LIMITS if (folder / name).is_file()}
        models.append(
            EmbeddedModel(
                name=folder.name,
                description=spec.description,
                dimension=spec.dimension,
                licence=CardText.parse((folder / "README.md").read_text(encoding="utf-8")).licence(),
                size_bytes=sum(path.stat().st_size for path in files.values()),
                files={name: digests(path)[0] for name, path in files.items()},
            )
        )
    return tuple(models)


def write_catalogue(catalogue: Catalogue, path: Path = CATALOGUE) -> None:
    """Write the catalogue."""
    with atomic_path(path) as temporary:
        temporary.write_text(catalogue.model_dump_json(indent=2) + "\n", encoding="utf-8")


def publish_embedded(owner: str, home: Path = EMBEDDED) -> tuple[PublishedModel, ...]:
    """Publish every embedded model, with its card and replay pack, as ``owner/xlstm-unet-NAME``.

    Raises
    ------
    HubError
        If one cannot be published; those before it are.
    """
    from xlstm_unet.zoo.push import plan_push, push

    models = []
    for model in describe_embedded(home):
        plan = plan_push(home / model.name, f"{owner}/xlstm-unet-{model.name}", private=False)
        pushed = push(plan)
        models.append(
            PublishedModel(
                name=model.name,
                repo=plan.repo,
                revision=pushed.revision,
                published=datetime.now(UTC).date().isoformat(),
                files=pushed.files,
            )
        )
        print(f"Published {plan.repo} at {pushed.revision}")
    return tuple(models)


def main(arguments: Sequence[str] | None = None) -> None:
    """Bring ``catalogue.json`` up to date."""
    parser = argparse.ArgumentParser(prog="python -m xlstm_unet.zoo.catalogue", description=__doc__)
    parser.add_argument("--publish", metavar="OWNER", help="publish all embedded models under this name")
    parser.add_argument("--catalogue", type=Path, default=CATALOGUE, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    before = read_catalogue(options.catalogue).published if options.catalogue.exists() else ()
    models = publish_embedded(options.publish) if options.publish else before
    catalogue = Catalogue(embedded=describe_embedded(), published=models)
    write_catalogue(catalogue, options.catalogue)
    print(
        f"{options.catalogue}: {len(catalogue.embedded)} embedded, {len(models)} published", file=sys.stderr
    )


if __name__ == "__main__":
    main()
