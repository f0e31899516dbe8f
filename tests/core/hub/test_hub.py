"""Fetching from a real Hub on loopback, with everything that goes wrong on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from xlstm_unet.errors import (
    BundleError,
    CancelledError,
    HubDamagedError,
    HubGatedError,
    HubMissingError,
    HubOfflineError,
    ModelError,
    TooLargeError,
)
from xlstm_unet.progress import Progress
from xlstm_unet.zoo import list_models, load_model
from xlstm_unet.zoo.get import Got, get_model
from xlstm_unet.zoo.hub import look_up, search
from xlstm_unet.zoo.manage import pin_model, remove_model
from xlstm_unet.zoo.record import read_record
from xlstm_unet.zoo.show import describe
from xlstm_unet.zoo.store import find_model

WEIGHTS = "model.safetensors"


def get(reference: str = "acme/tiny", **options: Any) -> Got:
    return get_model(look_up(reference), **options)


def cached(tmp_path: Path, pattern: str = "*") -> list[Path]:
    return [path for path in (tmp_path / "hf").rglob(pattern) if path.is_file() and "blobs" in path.parts]


def test_search_finds_what_carries_the_tag(hub: Any, tiny: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text('---\ntags: ["llm"]\n---\n')
    hub.add("acme/chatty", other)
    hub.add("acme/secret", tiny, private=True)
    assert [found.repo for found in search()] == ["acme/tiny"]
    assert [found.repo for found in search("TIN")] == ["acme/tiny"]
    assert search("nothing like it") == []
    assert search()[0].licence == "cc0-1.0"


def test_get_records_where_the_model_came_from(hub: Any, tiny: Path) -> None:
    steps: list[Progress] = []
    got = get("acme/tiny", on_progress=steps.append)
    commit = hub.repos["acme/tiny"].commits[-1][0]
    assert not got.already
    assert got.entry.source is not None
    assert (got.entry.name, got.entry.origin, got.entry.source.revision) == ("tiny", "downloaded", commit)
    assert load_model("tiny").spec == load_model("acme/tiny").spec == load_model(tiny).spec
    assert set(read_record(got.entry.folder).files) == {"model.json", WEIGHTS, "README.md", "LICENSE"}
    assert steps[-1].done == steps[-1].total == look_up("acme/tiny").size_bytes
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert get().already


def test_nothing_is_fetched_that_is_no_part_of_a_model(hub: Any, tiny: Path) -> None:
    files = dict(hub.repos["acme/tiny"].commits[-1][1])
    hub.repos["acme/tiny"].commit({**files, "evil.py": b"boom", "data/big.bin": b"x", "store.json": b"{}"})
    folder = get().entry.folder
    assert {path.name for path in folder.iterdir()} == {
        "model.json",
        WEIGHTS,
        "README.md",
        "LICENSE",
        "store.json",
    }
    asked = " ".join(path for _, path, _ in hub.log)
    assert "evil.py" not in asked
    assert "big.bin" not in asked


def test_a_cut_connection_is_taken_up_where_it_broke(hub: Any) -> None:
    hub.add("acme/cells", find_model("nuclei"))
    hub.cut[WEIGHTS] = [1_000_000]
    got = get("acme/cells")
    ranges = [asked for method, path, asked in hub.log if method == "GET" and path.endswith(WEIGHTS)]
    assert ranges == [None, "bytes=786432-"]
    assert (got.entry.folder / WEIGHTS).read_bytes() == (find_model("nuclei") / WEIGHTS).read_bytes()


def test_a_wrong_checksum_is_thrown_away(hub: Any, tiny: Path, tmp_path: Path) -> None:
    content = bytearray((tiny / WEIGHTS).read_bytes())
    content[-1] ^= 1
    hub.swapped[WEIGHTS] = bytes(content)
    with pytest.raises(HubDamagedError, match=r"model\.safetensors is not what the Hub announced"):
        get()
    assert list_models()[-1].name != "tiny"
    hub.swapped.clear()
    assert get().entry.name == "tiny"  # the bad one was not kept in the cache


@pytest.mark.parametrize("name", ["model.json", "README.md"])
def test_small_files_are_checked_too(hub: Any, name: str) -> None:
    right = hub.repos["acme/tiny"].commits[-1][1][name]
    hub.swapped[name] = right.replace(b"tiny", b"tine", 1)
    with pytest.raises(HubDamagedError, match=name):
        get()


def test_a_damaged_model_does_not_enter_the_store(hub: Any) -> None:
    files = dict(hub.repos["acme/tiny"].commits[-1][1])
    hub.repos["acme/tiny"].commit({**files, WEIGHTS: files[WEIGHTS][:-7]})
    with pytest.raises(BundleError, match=r"acme/tiny cannot be used: model\.safetensors"):
        get()
    assert "tiny" not in {entry.name for entry in list_models()}


def test_what_is_too_large_is_refused_before_it_is_fetched(hub: Any) -> None:
    hub.log.clear()
    with pytest.raises(TooLargeError):
        get("acme/tiny", max_bytes=1000)
    assert not any("resolve" in path for _, path, _ in hub.log)


def test_files_larger_than_a_model_may_have(hub: Any) -> None:
    files = dict(hub.repos["acme/tiny"].commits[-1][1])
    hub.repos["acme/tiny"].commit({**files, "README.md": b"x" * (2**20 + 1)})
    with pytest.raises(BundleError, match=r"README\.md has 1048577 bytes, expected at most 1048576"):
        look_up("acme/tiny")


def test_a_repository_of_something_else(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "config.json").write_text("{}")
    hub.add("acme/llm", tmp_path / "x")
    with pytest.raises(BundleError, match="no model of xLSTM-UNet"):
        look_up("acme/llm")


def test_revisions(hub: Any, tiny: Path) -> None:
    first = hub.repos["acme/tiny"].commits[-1][0]
    hub.repos["acme/tiny"].tags["v1"] = first
    files = dict(hub.repos["acme/tiny"].commits[-1][1])
    second = hub.repos["acme/tiny"].commit({**files, "LICENSE": b"changed\n"})
    assert look_up("acme/tiny@v1").revision == look_up(f"acme/tiny@{first}").revision == first
    got = get("acme/tiny@v1")
    assert got.entry.source is not None
    assert (got.entry.source.requested, got.entry.source.revision) == ("v1", first)
    pin_model("tiny")
    with pytest.raises(ModelError, match="is pinned"):
        get("acme/tiny")
    with pytest.raises(ModelError, match="is pinned"):
        remove_model("tiny")
    pin_model("tiny", False)
    updated = get("acme/tiny")
    assert updated.entry.source is not None
    assert updated.entry.source.revision == second
    assert load_model("tiny").licence == "changed\n"
    with pytest.raises(HubMissingError, match="no such revision"):
        look_up("acme/tiny@v9")


@pytest.mark.parametrize(
    "name", ["acme", "acme/tiny/more", "../tiny", "acme/..", "acme/ti ny", "https://x/y", "a/b@c d"]
)
def test_what_is_no_name_of_a_repository(hub: Any, name: str) -> None:
    hub.log.clear()
    with pytest.raises(HubMissingError, match="no model on the Hub"):
        look_up(name)
    assert not hub.log


def test_missing_and_private(hub: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(HubMissingError, match="There is no acme/nope on"):
        look_up("acme/nope")
    hub.add("acme/secret", tiny, private=True)
    with pytest.raises(HubMissingError, match="or it is private"):
        look_up("acme/secret")
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    assert look_up("acme/secret").files


def test_gated_without_and_with_a_token(hub: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("acme/terms", tiny, gated=True)
    found = look_up("acme/terms")
    assert found.gated
    for token in (None, "hf_of_somebody_else"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubGatedError, match="accept its terms") as caught:
            get_model(found)
        assert f"{hub.url}/acme/terms" in caught.value.hint
    monkeypatch.setenv("HF_TOKEN", "hf_loopback")
    assert get_model(found).entry.name == "terms"


def test_offline_with_and_without_cache(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    get()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert get().already
    remove_from_store_only()
    again = get()
    assert not again.already
    assert look_up("acme/tiny").cached
    assert again.entry.licence == "cc0-1.0"
    with pytest.raises(HubOfflineError, match="cannot be reached for acme/other"):
        look_up("acme/other")
    with pytest.raises(HubOfflineError):
        search()
    assert describe("tiny")["origin"] == "downloaded"


def remove_from_store_only() -> None:
    import shutil

    for entry in list_models():
        if entry.origin == "downloaded":
            shutil.rmtree(entry.folder)


def test_remove_frees_the_cache_too(hub: Any, tmp_path: Path) -> None:
    entry = get().entry
    assert cached(tmp_path)
    size = entry.size_bytes
    freed = remove_model("tiny")
    assert not cached(tmp_path)
    assert not entry.folder.exists()
    assert freed >= size - 2000


def test_the_weights_lie_on_the_disk_once(hub: Any, tmp_path: Path) -> None:
    folder = get().entry.folder
    assert (folder / WEIGHTS).stat().st_nlink == 2
    assert not (folder / WEIGHTS).is_symlink()


def test_names_that_are_taken(hub: Any, tiny: Path) -> None:
    hub.add("beta/tiny", tiny)
    get("acme/tiny")
    assert get("beta/tiny").entry.name == "tiny-beta"
    hub.add("gamma/tiny", tiny)
    with pytest.raises(ModelError, match="another model 'tiny'"):
        get("gamma/tiny", name="tiny")
    with pytest.raises(ModelError, match="embedded"):
        get("gamma/tiny", name="nuclei")


def test_cancel_is_heard_while_the_line_is_silent(hub: Any, tmp_path: Path) -> None:
    hub.stalled.add(WEIGHTS)
    asked = threading.Event()
    started = time.monotonic()

    def cancel() -> bool:
        asked.set()
        return time.monotonic() - started > 1.5

    with pytest.raises(CancelledError):
        get("acme/tiny", cancel=cancel)
    assert asked.is_set()
    assert "tiny" not in {entry.name for entry in list_models()}


CODE = "from xlstm_unet.zoo.get import get_model; from xlstm_unet.zoo.hub import look_up; "


def process(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CODE + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_killed_download_starts_again(hub: Any, tmp_path: Path) -> None:
    hub.stalled.add(WEIGHTS)
    victim = process("get_model(look_up('acme/tiny'))")
    for _ in range(600):
        if list((tmp_path / "hf").rglob("*.incomplete")):
            break
        time.sleep(0.1)
    victim.kill()
    victim.communicate()
    hub.stalled.clear()
    assert get().entry.name == "tiny"
    assert load_model("tiny").weights


def test_two_processes_at_once(hub: Any) -> None:
    hub.slow_seconds = 0.02
    workers = [process("print(get_model(look_up('acme/tiny')).entry.name)") for _ in range(2)]
    for worker in workers:
        out, err = worker.communicate(timeout=120)
        assert worker.returncode == 0, err
        assert out.strip() == "tiny"
    assert [entry.name for entry in list_models() if entry.origin == "downloaded"] == ["tiny"]
    assert load_model("tiny").weights


def test_a_cache_that_cannot_be_written_to(hub: Any, tmp_path: Path) -> None:
    (tmp_path / "hf").write_text("a file where the cache's folder should be")
    with pytest.raises(Exception, match="HF_HOME") as caught:
        get()
    assert type(caught.value).__name__ == "OutputError"


def test_a_store_on_a_full_disk(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies fail for want of room: nothing half stays, and the next try has all of the cache."""
    resource = pytest.importorskip("resource")
    get_files = look_up("acme/tiny")
    get_model(get_files)
    remove_from_store_only()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(Exception, match="Free some space"):
            get_model(get_files)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "tiny" not in {entry.name for entry in list_models()}
    assert get_model(get_files).entry.name == "tiny"


def test_nothing_is_asked_of_the_hub_at_start_up(hub: Any) -> None:
    hub.log.clear()
    code = (
        "import sys, xlstm_unet.zoo, xlstm_unet.cli.app, xlstm_unet.zoo.store; "
        "xlstm_unet.zoo.store.list_models(); import xlstm_unet.worker.session; "
        "assert not any(m.startswith('huggingface_hub') for m in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert hub.log == []


def test_what_the_hub_says_is_shown_without_control_characters(hub: Any, tiny: Path) -> None:
    files = dict(hub.repos["acme/tiny"].commits[-1][1])
    card = files["README.md"] + b"\n\x1b]0;owned\x07\x1b[2J"
    hub.repos["acme/tiny"].commit({**files, "README.md": card})
    assert "\x1b" not in describe("acme/tiny")["card"]
    json.dumps(describe("acme/tiny"))
