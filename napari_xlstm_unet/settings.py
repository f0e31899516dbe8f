"""Settings of the plugin: in napari's Preferences where napari has them (0.9), else in a file of our own."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from platformdirs import user_config_dir

from xlstm_unet.files import atomic_path

PLUGIN = "xlstm-unet"
SECTION = "worker"


@dataclass(frozen=True)
class Settings:
    """What may be set; the same names and defaults stand in ``napari.yaml``.

    Parameters
    ----------
    command
        How to start the worker, as typed in a terminal: empty for this Python,
        ``/path/to/python -m xlstm_unet.worker`` for another,
        ``ssh -T -o BatchMode=yes host xlstm-unet worker`` for another machine.
    device
        What models run on when the dock opens.
    limit_gb
        Largest array that is read without being asked again.
    """

    command: str = ""
    device: str = "auto"
    limit_gb: float = 8.0

    @property
    def argv(self) -> list[str] | None:
        """The command split into words; None for this Python."""
        return shlex.split(self.command, posix=sys.platform != "win32") or None


def read_settings(file: Path | None = None) -> Settings:
    """Return the settings; defaults where none were made or the file is damaged."""
    section = _napari_section()
    if section is not None:
        return Settings(**{field.name: getattr(section, field.name) for field in fields(Settings)})
    try:
        stored = json.loads((file or settings_file()).read_text(encoding="utf-8"))
        return Settings(
            command=str(stored.get("command", Settings.command)),
            device=str(stored.get("device", Settings.device)),
            limit_gb=float(stored.get("limit_gb", Settings.limit_gb)),
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return Settings()


def write_settings(settings: Settings, file: Path | None = None) -> None:
    """Store the settings.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    section = _napari_section()
    if section is not None:
        for name, value in asdict(settings).items():
            setattr(section, name, value)
        return
    with atomic_path(file or settings_file()) as temporary:
        temporary.write_text(json.dumps(asdict(settings), indent=2), encoding="utf-8")


def settings_file() -> Path:
    """Return where settings lie where napari keeps none."""
    return Path(user_config_dir("xlstm-unet", appauthor=False)) / "napari.json"


def _napari_section() -> Any:
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return None
    try:
        return getattr(get_plugin_settings(PLUGIN), SECTION, None)
    except KeyError:  # the plugin is not registered, as in a script
        return None
