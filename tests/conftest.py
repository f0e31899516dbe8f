"""Fixtures shared by all tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

collect_ignore = [] if find_spec("napari") and find_spec("pytestqt") else ["plugin"]
"""The plugin's tests are for where napari is installed."""


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the small real images that travel with the tests."""
    return REPOSITORY / "tests" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder ``shared`` beside the repository with the whole data; skipped where it is missing."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the whole data in a folder 'shared' beside the repository")
    return folder
