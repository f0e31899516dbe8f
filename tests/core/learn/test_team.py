"""Several processes that train one network, on two CPU processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from xlstm_unet.errors import TrainingError
from xlstm_unet.learn import TrainConfig, open_dataset, train
from xlstm_unet.learn.team import Team, is_first_process, make_team

SCRIPT = Path(__file__).with_name("train_in_team.py")


def _start(size: int, arguments: list[Path]) -> list[dict[str, Any]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(size),
                "LOCAL_WORLD_SIZE": str(size),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            },
        )
        for rank in range(size)
    ]
    said = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * size
    return [json.loads(text.splitlines()[-1]) for text in said]


@pytest.mark.slow
def test_two_processes_train_one_network(pair_folder: Path, tiny: TrainConfig, tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    short, config, run = tiny.adapted(steps=4), tmp_path / "config.json", tmp_path / "run"
    config.write_text(short.model_dump_json())
    first, second = _start(2, [pair_folder, config, run])
    assert first["weights"] == second["weights"]
    assert first["generator"] != second["generator"]
    assert first["kept"] == second["kept"]
    assert (first["logs"], second["logs"]) == (True, False)

    data = open_dataset(pair_folder)
    alone = train(short, data, tmp_path / "alone", device="cpu").network.state_dict()
    kept = torch.load(run / "best.pt", weights_only=True)["weights"]
    assert any(not torch.equal(value, kept[name]) for name, value in alone.items())
    with pytest.raises(TrainingError, match="another number of processes"):
        train(short, data, run, device="cpu", resume=True)
    # A finished run is taken up by as many processes as it had, and ends at once with the same weights.
    assert [said["kept"] for said in _start(2, [pair_folder, config, run])] == [first["kept"]] * 2


def test_a_process_alone_agrees_with_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    team = make_team("cpu")
    assert type(team) is Team
    assert is_first_process()
    assert (team.seed(7), team.agreed(0.5), team.gathered(torch.ones(2))[0].sum()) == (7, 0.5, 2)
