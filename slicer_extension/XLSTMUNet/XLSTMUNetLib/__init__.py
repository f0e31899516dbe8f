"""Everything of the Slicer module but its widget; importing it makes the core importable."""

from __future__ import annotations

from XLSTMUNetLib.core import add_core_to_path

add_core_to_path()
