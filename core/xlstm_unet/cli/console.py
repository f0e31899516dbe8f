"""What commands print: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import math
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer

from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.progress import Cancel, OnProgress, Progress

CANCELLED_EXIT = 130


@contextmanager
def reporting(as_json: bool) -> Iterator[None]:
    """Turn errors inside into a message and an exit code; with ``as_json`` also into JSON on stdout."""
    try:
        yield
    except (KeyboardInterrupt, CancelledError):
        warn("Cancelled.")
        raise typer.Exit(CANCELLED_EXIT) from None
    except XLSTMUNetError as error:
        if as_json:
            print_json({"error": error_fields(error)})
        print_error(error)
        raise typer.Exit(1) from None


@contextmanager
def interruptible() -> Iterator[Cancel]:
    """Give what says whether Ctrl-C was pressed, for work that ends itself; pressed again, it is stopped."""
    pressed = threading.Event()

    def press(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()
        warn("Cancelling; press Ctrl-C again to stop at once.")

    previous = signal.signal(signal.SIGINT, press)
    try:
        yield pressed.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


def error_fields(error: XLSTMUNetError) -> dict[str, str]:
    """Return an error as JSON fields."""
    return {"code": error.code, "message": error.message, "hint": error.hint}


def print_error(error: XLSTMUNetError, subject: str = "") -> None:
    """Print an error on stderr, with what it is about before it."""
    warn(f"Error: {subject + ': ' if subject else ''}{error.message}")
    if error.hint:
        warn(f"       {error.hint}")


def warn(text: str) -> None:
    """Print a line on stderr."""
    print(text, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Print JSON on stdout; numbers that are not finite become null."""
    print(json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
    """Print a table on stdout; columns of numbers stand right."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        numbers = all(isinstance(row[i], int | float) for row in rows)
        table.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console().print(table)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if math.isfinite(value) else "-"
    return "" if value is None else str(value)


@contextmanager
def progress_bar(total: int | None = None) -> Iterator[OnProgress]:
    """Show a progress bar on stderr (nothing where that is no terminal) and give what moves it.

    Parameters
    ----------
    total
        Number of steps in all; when not given, each report brings its own.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def show(step: Progress) -> None:
            bar.update(task, description=step.stage, completed=step.done, total=step.total)

        yield show
