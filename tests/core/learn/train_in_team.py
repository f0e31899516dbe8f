"""Train in one of several processes and say what this one ended with; the environment names its place."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from xlstm_unet.learn import TrainConfig, open_dataset, train
from xlstm_unet.learn.train import _Run


def main(data: str, config: str, run: str) -> None:
    """Print the digest of this process's own weights, and of the state of its random numbers."""
    torch.set_num_threads(1)
    result = _Run._result
    said = {}

    def result_and_digests(self: _Run) -> object:
        said["weights"] = _digest(*self.optimisation.network.parameters())
        said["generator"] = _digest(self.source.generator.get_state())
        said["logs"] = self.log is not None
        return result(self)

    _Run._result = result_and_digests  # type: ignore[method-assign]
    settings = TrainConfig.model_validate_json(Path(config).read_text())
    made = train(
        settings, open_dataset(data), run, device="cpu", resume=(Path(run) / "checkpoint.pt").exists()
    )
    said["kept"] = _digest(*made.network.state_dict().values())
    print(json.dumps(said))


def _digest(*tensors: torch.Tensor) -> str:
    return hashlib.sha256(b"".join(t.detach().numpy().tobytes() for t in tensors)).hexdigest()


if __name__ == "__main__":
    main(*sys.argv[1:])
