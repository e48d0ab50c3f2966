"""Ranks that share a trial: two processes over gloo give the records of one."""

from __future__ import annotations

import pickle
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from study.trial.ranks import TorchGroup
from study.trial.spec import TrialResult, TrialSpec
from study.trial.worker import run_trial
from tests.study.trial.helpers import DEFENDED, expect_same, spec_of

TIMEOUT_S = 120


def gloo_rank(rank: int, size: int, folder: str, spec: TrialSpec) -> None:
    """One process of a real process group; at top level, so that it can be spawned."""
    torch.set_num_threads(1)
    store = torch.distributed.FileStore(f"{folder}/meet", size)
    timeout = timedelta(seconds=TIMEOUT_S)
    torch.distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timeout)
    result = run_trial(spec, TorchGroup())
    Path(folder, f"rank{rank}").write_bytes(pickle.dumps(result))
    torch.distributed.destroy_process_group()


@pytest.mark.long
def test_two_processes_give_the_records_of_one(
    root: Path, tmp_path: Path, alone: dict[str, TrialResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    spec = spec_of(root, "lpa", DEFENDED["lpa"])
    other = torch.multiprocessing.get_context("spawn").Process(
        target=gloo_rank, args=(1, 2, str(tmp_path), spec)
    )
    other.start()
    try:
        gloo_rank(0, 2, str(tmp_path), spec)
        other.join(TIMEOUT_S)
        assert other.exitcode == 0
    finally:
        other.kill()
    for rank in range(2):
        expect_same(pickle.loads((tmp_path / f"rank{rank}").read_bytes()), alone["lpa"])
