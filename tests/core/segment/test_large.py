"""Memory taken by images of many megapixels, measured in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, resource, sys
import numpy as np
import torch
from xlstm_unet.nets import build_network
from xlstm_unet.segment import Segmenter
from xlstm_unet.spec import ModelSpec

torch.set_num_threads(1)
side = int(sys.argv[1])
spec = ModelSpec.model_validate({
    "name": "tiny", "dimension": 2, "task": "instances", "labels": [{"value": 1, "name": "cell"}],
    "normalisation": [{"scheme": "percentile"}], "patch_size": [256, 256],
    "input_channels": 3, "accepts_gray": True,
    "network": {"variant": "bot", "mixer": "none", "features": [4, 8], "kernels": [[3, 3]] * 2,
                "strides": [[1, 1], [2, 2]], "encoder_blocks": [1, 1], "decoder_blocks": [1]},
})
segmenter = Segmenter(spec, build_network(spec, generator=torch.Generator().manual_seed(1)), device="cpu")
rows, columns = np.indices((256, 256))
cells = 120 + 100 * np.sin(rows / 5) * np.sin(columns / 5)
image = np.tile(cells.astype(np.uint8), (side // 256, side // 256))
segmenter(image[:512, :512])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
result = segmenter(image)
print(json.dumps({"taken": peak() - before, "objects": int(result.labels.max())}))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="peak memory is read with the resource module")
def test_memory_stays_a_few_bytes_a_pixel() -> None:
    side = 4096
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(side)], capture_output=True, text=True, check=True, timeout=250
    )
    figures = json.loads(run.stdout)
    assert figures["objects"] > 1000
    # Normalised image (4 bytes a pixel), two maps (4), labels twice (8), and a row of tiles.
    assert figures["taken"] < 32 * side**2
