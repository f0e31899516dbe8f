"""Owning stdin and stdout, so that no library can print into the stream of messages or read from it."""

from __future__ import annotations

import io
import os
import sys


def take_over() -> tuple[io.FileIO, io.FileIO]:
    """Return private copies of stdin and stdout; from now on fd 0 is empty and fd 1 is stderr.

    Whatever prints afterwards, in Python, in C or in a child process, prints to stderr.
    """
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (0, 1):
            msvcrt.setmode(descriptor, os.O_BINARY)
    incoming, outgoing = os.dup(0), os.dup(1)
    if sys.platform == "win32":
        for descriptor in (incoming, outgoing):
            msvcrt.setmode(descriptor, os.O_BINARY)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return io.FileIO(incoming, "rb"), io.FileIO(outgoing, "wb")
