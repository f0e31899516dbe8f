"""``python -m xlstm_unet.worker``: the worker on stdin and stdout."""

from __future__ import annotations

from xlstm_unet.worker.server import main

main()
