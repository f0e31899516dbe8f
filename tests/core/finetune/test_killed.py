"""Killed at every step on the disk: corrections, versions and models stay sound."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from xlstm_unet.learn.corrections_store import CorrectionStore
from xlstm_unet.learn.finetune import finetune
from xlstm_unet.learn.finetune_options import FineTuneOptions
from xlstm_unet.zoo import versions
from xlstm_unet.zoo.bundle import read_bundle

SCRIPT = Path(__file__).with_name("killed_everywhere.py")


@pytest.fixture(scope="module")
def tree(home, corrections, tmp_path_factory):
    """A data folder with one kept version, one pending version and one image's corrections."""
    import shutil

    folder = tmp_path_factory.mktemp("tree") / "home"
    shutil.copytree(home, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XLSTM_UNET_HOME", str(folder))
        root = versions.root_of("tiny")
        bundle = read_bundle(root.folder)
        options = FineTuneOptions(judge=False, batch=1)
        tuned = finetune(bundle.spec, bundle.build(), [corrections], steps=1, options=options, device="cpu")
        CorrectionStore(folder).save(corrections, "tiny", bundle.spec)
        first = versions.add_pending(root, tuned, [corrections])
        versions.keep_version(first.record.version, name="mine")
        versions.add_pending(root, tuned, [corrections])
    return folder


@pytest.mark.skipif(os.name == "nt", reason="needs fork and SIGKILL")
@pytest.mark.parametrize(
    "operation",
    [
        "discard",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("keep", "keep-first", "undo", "save", "forget")
        ),
    ],
)
def test_killed_at_every_step(tree, operation):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tree), operation], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > 3
