"""Train a tiny model in a process of its own that kills itself two steps after a checkpoint."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from xlstm_unet.learn import TrainConfig, open_dataset, train
from xlstm_unet.learn.train import _Run


def main(data: str, config: str, run: str, kill_at: int) -> None:
    """Run a training that does not end."""
    torch.set_num_threads(1)
    one_step = _Run._one_step

    def step_or_die(self: _Run) -> None:
        one_step(self)
        if self.step == kill_at - 2:
            self._save()
        if self.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    _Run._one_step = step_or_die  # type: ignore[method-assign]
    train(TrainConfig.model_validate_json(Path(config).read_text()), open_dataset(data), run, device="cpu")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
