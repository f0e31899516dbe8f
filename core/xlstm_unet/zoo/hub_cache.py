"""The Hub's standard cache: what it holds of a model, and letting go of it."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlstm_unet.zoo.hub_library import hub_library

_BLOCK = 2**20


def digests(path: Path) -> tuple[str, str]:
    """Return the SHA-256 of a file, and the SHA-1 that git names its content by, in one pass."""
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            git.update(block)
    return sha256.hexdigest(), git.hexdigest()


def cached_digest(path: Path) -> str:
    """Return the digest that the cache names the content of ``path`` by; empty where it does not."""
    name = path.resolve().name
    return name if path.is_symlink() and re.fullmatch("[0-9a-f]{64}|[0-9a-f]{40}", name) else ""


def evict(path: Path) -> None:
    """Remove one file from the cache, so that it is fetched again."""
    with suppress(OSError):
        content = path.resolve()
        path.unlink(missing_ok=True)
        content.unlink(missing_ok=True)


def newest_revision(repo: str) -> str | None:
    """Return the revision of a repository that came into the cache last; None where there is none."""
    held = sorted(_revisions(repo), key=lambda found: float(found.last_modified))
    return str(held[-1].commit_hash) if held else None


def forget(repo: str, revision: str) -> int:
    """Remove one revision of a repository from the cache.

    Returns
    -------
    int
        Bytes that are free again; 0 where the cache does not hold it or may not be written to.
    """
    if revision not in {found.commit_hash for found in _revisions(repo)}:
        return 0
    with suppress(OSError):
        plan = _scanned().delete_revisions(revision)
        plan.execute()
        return int(plan.expected_freed_size)
    return 0


def _scanned() -> Any:
    library = hub_library()
    return library.scan_cache_dir(library.constants.HF_HUB_CACHE)


def _revisions(repo: str) -> list[Any]:
    library = hub_library()
    try:
        return [found for entry in _scanned().repos if entry.repo_id == repo for found in entry.revisions]
    except (library.errors.CacheNotFound, OSError):
        return []
