"""A loopback Hub, set before huggingface_hub is imported; every test has a cache and a store of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from xlstm_unet.nets import Network
from xlstm_unet.spec import ModelSpec
from xlstm_unet.zoo import write_bundle
from xlstm_unet.zoo.card import CardFacts, model_card


def _load(path: Path) -> ModuleType:
    place = spec_from_file_location(path.stem, path)
    assert place is not None
    assert place.loader is not None
    module = module_from_spec(place)
    import sys

    sys.modules[path.stem] = module
    place.loader.exec_module(module)
    return module


hub_server = _load(Path(__file__).resolve().parents[2] / "hub_server.py")
_SERVER = hub_server.HubServer()
_ENVIRONMENT = {
    "HF_ENDPOINT": _SERVER.url,
    "HF_HOME": tempfile.mkdtemp(prefix="xlstm-unet-hf-"),
    "HF_HUB_DISABLE_XET": "1",  # the loopback Hub has no such storage
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
os.environ.update(_ENVIRONMENT)


@pytest.fixture(scope="session", autouse=True)
def _close() -> Iterator[None]:
    yield
    _SERVER.close()
    shutil.rmtree(_ENVIRONMENT["HF_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, spec: ModelSpec, network: Network) -> Path:
    """A whole model; not to be changed."""
    facts = CardFacts(
        data="None: it is not trained.",
        licence="cc0-1.0",
        scores={"F1 at IoU .5": 0.123},
        scores_on="nothing",
        limits=("Finds nothing.",),
    )
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    return write_bundle(folder, spec, network, card=model_card(spec, facts), licence="CC0 1.0\n")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Path) -> Iterator[hub_server.HubServer]:
    """The Hub with ``acme/tiny`` on it, an empty cache and an empty store."""
    from huggingface_hub import constants

    assert _SERVER.url == constants.ENDPOINT, "huggingface_hub was imported before its endpoint was set"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setenv("XLSTM_UNET_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    _SERVER.forget_everything()
    _SERVER.add("acme/tiny", tiny)
    yield _SERVER
    _SERVER.forget_everything()
    for thread in threading.enumerate():
        if thread.name == "download":  # of a cancelled download; its next request belongs to no other test
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> str:
    """Be logged in."""
    monkeypatch.setenv("HF_TOKEN", hub_server.TOKEN)
    return str(hub_server.TOKEN)
