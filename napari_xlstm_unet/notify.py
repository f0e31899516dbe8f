"""Messages to the user, through napari."""

from __future__ import annotations

import logging

from napari.utils.notifications import show_error, show_info, show_warning

from xlstm_unet.errors import XLSTMUNetError

_log = logging.getLogger(__name__)


def tell_error(error: Exception) -> None:
    """Show what went wrong and what to do about it."""
    if isinstance(error, XLSTMUNetError):
        show_error(str(error))
        return
    _log.error("Unexpected error", exc_info=error)
    show_error(f"Unexpected error: {type(error).__name__}: {error}. Please report it.")


def tell_warning(text: str) -> None:
    """Show a warning."""
    show_warning(text)


def tell(text: str) -> None:
    """Show a passing remark."""
    show_info(text)
