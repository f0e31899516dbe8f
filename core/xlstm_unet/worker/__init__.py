"""The worker process: heavy work apart from the user interface, over stdin and stdout.

`WorkerClient` is what a front uses; ``python -m xlstm_unet.worker`` is the other end. The messages are
described in ``docs/worker-protocol.md``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xlstm_unet.worker.client import WorkerClient
    from xlstm_unet.worker.errors import WorkerError
    from xlstm_unet.worker.job import Job
    from xlstm_unet.worker.protocol import Reply

__all__ = ["Job", "Reply", "WorkerClient", "WorkerError"]

_HOME = {"Job": "job", "Reply": "protocol", "WorkerClient": "client", "WorkerError": "errors"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the server must own its pipes before numpy is imported."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
