"""Worker groups: gloo where a GPU is shared, and a group that cannot start is given up."""

from __future__ import annotations

from typing import Any

import pytest

from study.executors import worker_group as crew_module
from study.executors.worker_group import WorkerGroup


def test_train_gives_up_and_gloo_shares_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train retries for ever by default; two NCCL ranks cannot share a GPU."""
    asked: dict[str, Any] = {}

    class Trainer:
        def __init__(self, loop: Any, **options: Any) -> None:
            asked.update(options)

        def fit(self) -> Any:
            return type("Result", (), {"return_value": 7})

    released: list[str] = []
    monkeypatch.setattr(crew_module, "Trainer", Trainer)
    monkeypatch.setattr(crew_module, "release", released.append)
    for loopback in (False, True):
        assert WorkerGroup(2, 1, 0.5, loopback).train(lambda config: None, {}, "t") == 7
        assert asked["torch_config"].backend == "gloo"
        assert asked["run_config"].failure_config.max_failures == 0
        assert asked["run_config"].failure_config.controller_failure_limit == 0
        assert asked["scaling_config"].resources_per_worker == {"CPU": 1, "GPU": 0.5}
    assert len(set(released)) == 2  # each run's placement group, by a name of its own
