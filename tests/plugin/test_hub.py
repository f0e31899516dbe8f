"""The window "Models" behind its face, with a real worker and a Hub on loopback."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_xlstm_unet.hub_state import HubPhase, without_front_matter
from napari_xlstm_unet.state import Finish
from xlstm_unet.worker import WorkerClient

if TYPE_CHECKING:
    from conftest import Bench

REPO = "somebody/cells-2d"


def _server() -> Any:
    path = Path(__file__).parents[1] / "hub_server.py"
    spec = importlib.util.spec_from_file_location("hub_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hub_server"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module.HubServer()


@pytest.fixture(scope="module")
def hub(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A Hub with one model."""
    folder = tmp_path_factory.mktemp("hub") / "cells-2d"
    shutil.copytree(home / "models" / "plane", folder)
    front = '---\nlicense: cc0-1.0\ntags: ["xlstm-unet"]\n---\n'
    card = front + "# Cells\n\nFinds cells. ![x](http://127.0.0.1:9/x.png)\n"
    (folder / "README.md").write_text(card)
    server = _server()
    server.add(REPO, folder)
    yield server
    server.close()


@pytest.fixture(scope="module")
def online(
    hub: Any, tmp_path_factory: pytest.TempPathFactory, home: Path
) -> Iterator[Callable[[], WorkerClient]]:
    """A worker that knows the Hub, with a home and a cache of its own."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "models").mkdir()
    shutil.copytree(home / "models" / "plane", folder / "models" / "plane")
    env = {
        **os.environ,
        "XLSTM_UNET_HOME": str(folder),
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(folder / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    with WorkerClient(env=env) as client:

        class Shared:
            def __getattr__(self, name: str) -> Any:
                return getattr(client, name)

            def close(self) -> None:
                """Leave the worker to the next test."""

        yield Shared  # type: ignore[misc]


@pytest.fixture
def bench(online: Any, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A controller whose worker knows the Hub."""
    made = request.getfixturevalue("make_bench")(online())
    yield made
    made.controller.close()


def _done(bench: Bench) -> None:
    bench.loop.until(lambda: bench.controller.hub.state.phase is HubPhase.IDLE)


def test_search_look_fetch_segment_remove(bench: Bench, cells: np.ndarray) -> None:
    hub, state = bench.controller.hub, bench.controller.hub.state
    hub.search("cells")
    assert state.phase is HubPhase.SEARCHING
    _done(bench)
    [found] = state.results
    assert (found.repo, found.installed) == (REPO, "")
    assert state.status == "1 model found."

    hub.show(REPO)
    bench.loop.until(lambda: state.card is not None and state.card.text)
    assert state.card.text.startswith("# Cells")
    assert "cc0-1.0" in state.card.facts
    assert state.card.size_bytes > 1000

    hub.fetch(REPO, state.card.size_bytes)
    _done(bench)
    assert state.results[0].installed == "cells-2d"
    bench.loop.until(lambda: bench.controller.model.state.name == "cells-2d")
    bench.loop.until(lambda: bench.controller.model.state.spec is not None)
    info = next(info for info in bench.controller.model.state.models if info.name == "cells-2d")
    assert info.origin == "downloaded"
    assert info.provenance.startswith(f"{REPO} at ")

    bench.controller.image.state.auto_diameter = False
    bench.viewer.add_image(cells[:64, :64], name="cells")
    bench.segment()
    assert bench.controller.job.finish is Finish.DONE
    assert bench.viewer.layers[-1].name == "cells - cells-2d"

    hub.remove("cells-2d")
    bench.loop.until(lambda: "cells-2d" not in [m.name for m in bench.controller.model.state.models])
    assert "free again" in bench.messages()[-1]


def test_cancelling_a_download(bench: Bench, hub: Any) -> None:
    hub.stalled.add("model.safetensors")
    part, state = bench.controller.hub, bench.controller.hub.state
    part.fetch(REPO)
    bench.loop.until(lambda: any("model.safetensors" in path for _, path, _ in hub.log[-4:]))
    started = time.monotonic()
    part.cancel()
    _done(bench)
    assert time.monotonic() - started < 3
    assert state.status == "Cancelled."
    assert not bench.messages()
    hub.stalled.clear()


def test_what_is_not_there_says_so(bench: Bench) -> None:
    part, state = bench.controller.hub, bench.controller.hub.state
    part.show("somebody/else")
    bench.loop.until(lambda: state.card is not None and state.card.facts != "Reading…")
    assert "somebody/else" in state.card.facts
    part.fetch("somebody/else")
    _done(bench)
    assert "somebody/else" in bench.messages()[0]


def test_a_card_without_its_front_matter() -> None:
    assert without_front_matter("---\na: b\n---\n\n# T\n---\n") == "# T\n---"
    assert without_front_matter("# T") == "# T"
    assert without_front_matter("---\nno end") == "---\nno end"
