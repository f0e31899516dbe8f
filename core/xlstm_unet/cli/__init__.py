"""The command line, ``xlstm-unet``.

Exit codes: 0 done; 1 an error, or at least one file that failed; 2 wrong usage; 130 cancelled with Ctrl-C;
143 terminated. Results go to stdout, progress and errors to stderr.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

from xlstm_unet.allocator import tune_allocator


def main() -> NoReturn:
    """Run the command line and exit."""
    tune_allocator()
    try:
        # A polite kill unwinds like Ctrl-C, so that partial files are removed.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        from xlstm_unet.cli.app import app

        app()
    except KeyboardInterrupt:
        print("Cancelled.", file=sys.stderr)
        _exit_cancelled()
    except SystemExit as stop:
        if stop.code == 130:
            _exit_cancelled()
        raise
    sys.exit(0)


def _exit_cancelled() -> NoReturn:
    """Exit at once: Python itself would end by the signal where Ctrl-C came while it ran ``exec``."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(130)
