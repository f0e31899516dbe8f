"""The Hub's standard cache: what it holds of a model, and letting go of it."""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from pathlib import Path

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


def forget(repo: str, revision: str) -> int:
    """Remove one revision of a repository from the cache.

    Returns
    -------
    int
        Bytes that are free again; 0 where the cache does not hold it or may not be written to.
    """
    library = hub_library()
    try:
        cache = library.scan_cache_dir(library.constants.HF_HUB_CACHE)
    except library.errors.CacheNotFound:
        return 0
    held = {found.commit_hash for entry in cache.repos if entry.repo_id == repo for found in entry.revisions}
    if revision not in held:
        return 0
    with suppress(OSError):
        plan = cache.delete_revisions(revision)
        plan.execute()
        return int(plan.expected_freed_size)
    return 0
