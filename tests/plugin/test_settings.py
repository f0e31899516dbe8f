"""Settings survive, in napari's Preferences or in a file of our own."""

from __future__ import annotations

from pathlib import Path

import pytest
from npe2 import PluginManager, PluginManifest

from napari_xlstm_unet import settings as module
from napari_xlstm_unet.settings import PLUGIN, Settings, read_settings, write_settings

IN_NAPARI = module._napari_section
MANIFEST = Path(module.__file__).parent / "napari.yaml"


def test_own_file(tmp_path: Path) -> None:
    file = tmp_path / "folder" / "settings.json"
    assert read_settings(file) == Settings()
    changed = Settings("ssh -T host 'my python' -m xlstm_unet.worker", "cpu", 2.5)
    write_settings(changed, file)
    assert read_settings(file) == changed
    assert changed.argv == ["ssh", "-T", "host", "my python", "-m", "xlstm_unet.worker"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"limit_gb": "much"}', '{"limit_gb": null}'])
def test_a_damaged_file_gives_the_defaults(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text)
    assert read_settings(file) == Settings()


def test_unknown_entries_are_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"device": "cpu", "colour": "red"}')
    assert read_settings(file) == Settings(device="cpu")


def test_in_napari(plugin_settings: None, npe2pm: PluginManager, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("napari", minversion="0.9")
    monkeypatch.setattr(module, "_napari_section", IN_NAPARI)
    npe2pm.register(PluginManifest.from_file(MANIFEST))
    from napari.settings import get_plugin_settings

    section = get_plugin_settings(PLUGIN).worker
    assert Settings(section.command, section.device, section.limit_gb) == Settings()
    write_settings(Settings(device="cpu"))
    assert section.device == "cpu"
    assert read_settings() == Settings(device="cpu")
