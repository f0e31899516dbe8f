"""The command line for models, on the Hub on loopback: a new user's path, and what is asked."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from xlstm_unet.cli.app import app
from xlstm_unet.images import read_labels
from xlstm_unet.zoo import hub as hub_module
from xlstm_unet.zoo.store import find_model

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's own


def models(*arguments: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["models", *map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == code, done.stderr
    return done


def answer(*arguments: object) -> Any:
    return json.loads(models(*arguments, "--json").stdout)


def test_search_get_segment(hub: Any, data: Path, tmp_path: Path) -> None:
    hub.add("acme/cells-2d", find_model("nuclei"))
    assert "acme/cells-2d" in models("search", "cells").stdout
    shown = models("show", "acme/cells-2d").stdout
    assert "cc0-1.0" in shown
    assert "Training data" in shown
    done = models("get", "acme/cells-2d")
    assert "Cell nuclei in fluorescence" in done.stdout
    assert "4.7 MB, licence cc0-1.0" in done.stderr
    assert answer("search")["models"][0]["installed"] == "cells-2d"
    image = data / "nuclei" / "images" / "fluo_small.png"
    run = CliRunner().invoke(
        app, ["segment", str(image), "--model", "cells-2d", "--output", str(tmp_path / "out"), "--json"]
    )
    assert run.exit_code == 0, run.stderr
    (labels,) = (tmp_path / "out").glob("*labels*")
    assert read_labels(labels).max() > 30
    removed = answer("remove", "cells-2d", "--yes")
    assert removed["freed_bytes"] > 4_000_000
    assert "cells-2d" not in {model["name"] for model in answer("list")["models"]}


def test_list_says_where_models_are_from(hub: Any) -> None:
    models("get", "acme/tiny")
    models("pin", "tiny")
    entry = next(model for model in answer("list")["models"] if model["name"] == "tiny")
    assert entry["source"]["repo"] == "acme/tiny"
    assert entry["pinned"]
    assert entry["scores"] == {"F1 at IoU .5": 0.123}
    assert "is pinned" in models("remove", "tiny", "--yes", code=1).stderr
    models("pin", "tiny", "--off")
    assert answer("rename", "tiny", "small")["name"] == "small"
    assert answer("get", "acme/tiny")["name"] == "small"


def test_what_is_large_is_asked(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "LARGE_BYTES", 1000)
    refused = models("get", "acme/tiny", code=1)
    assert "Fetch 0.0 MB?" in refused.stderr
    assert "--yes" in refused.stderr
    models("get", "acme/tiny", "--yes")


def test_removing_asks(hub: Any) -> None:
    models("get", "acme/tiny")
    assert "Add --yes" in models("remove", "tiny", code=1).stderr
    assert find_model("tiny").exists()


def test_push_lists_what_travels_and_asks(hub: Any, token: str) -> None:
    refused = models("push", "nuclei", "me/nuclei", code=1)
    assert "pieces of images travel in replay.npz" in refused.stderr
    assert "192 x 192" in refused.stderr
    assert "Send this to me/nuclei?" in refused.stderr
    assert "me/nuclei" not in hub.repos
    dry = answer("push", "nuclei", "me/nuclei", "--dry-run")
    assert len(dry["patches"]) == refused.stderr.count("labels (")
    assert "me/nuclei" not in hub.repos
    sent = answer("push", "nuclei", "me/nuclei", "--yes", "--no-replay")
    assert sent["revision"] == hub.repos["me/nuclei"].commits[-1][0]
    assert hub.repos["me/nuclei"].private


def test_export_and_import(hub: Any, tmp_path: Path) -> None:
    path = tmp_path / "n.zip"
    assert "Write them into the zip" in models("export", "nuclei", "-o", path, code=1).stderr
    assert not path.exists()
    assert answer("export", "nuclei", "-o", path, "--no-replay")["size_bytes"] == path.stat().st_size
    assert "nuclei/replay.npz" not in zipfile.ZipFile(path).namelist()
    assert "embedded" in models("import", path, code=1).stderr
    assert answer("import", path, "--name", "mine")["name"] == "mine"
    assert answer("show", "mine")["licence"] == "cc0-1.0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("get", "acme/nope"), "There is no acme/nope"),
        (("get", "nope"), "owner/name"),
        (("show", "nope"), "There is no model 'nope'"),
        (("get", "acme/tiny", "--name", "../x"), "cannot be a model's name"),
        (("push", "nuclei", "me/x@v1", "--yes"), "a push goes"),
        (("import", "/nowhere.zip"), "name to load it by"),
    ],
)
def test_errors_say_what_to_do(hub: Any, arguments: tuple[str, ...], message: str) -> None:
    done = models(*arguments, "--json", code=1)
    assert message.lower() in json.loads(done.stdout)["error"]["message"].lower() + done.stderr.lower()
