"""Run the command line with ``python -m xlstm_unet.cli``."""

from __future__ import annotations

from xlstm_unet.cli import main

main()
