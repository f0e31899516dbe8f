"""``xlstm-unet doctor``: whether this installation is sound, and how fast."""

from __future__ import annotations

import typer

from xlstm_unet.cli.console import print_json, print_table, reporting, warn
from xlstm_unet.cli.options import DeviceOption, JsonOption


def doctor(device: DeviceOption = "auto", as_json: JsonOption = False) -> None:
    """Show versions, devices and memory, and segment a small image as a self-test.

    The exit code is 1 when something is broken.
    """
    with reporting(as_json):
        from xlstm_unet.doctor import examine

        checks = examine(device)
        sound = all(check.sound for check in checks)
        if as_json:
            rows = [{"name": c.name, "ok": c.sound, "found": c.found} for c in checks]
            print_json({"ok": sound, "checks": rows})
        else:
            rows_shown = [("ok" if c.sound else "BROKEN", c.name, c.found) for c in checks]
            print_table(("", "What", "Found"), rows_shown)
        if not sound:
            warn("Something is broken; see the lines marked BROKEN.")
            raise typer.Exit(1)
