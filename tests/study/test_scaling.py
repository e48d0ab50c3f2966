"""``study/scaling.py``: every length on every number of nodes, a cluster for each number."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from study import scaling


@dataclass
class Found:
    nodes: int
    trials: int
    length: float


def test_every_combination_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    @contextlib.contextmanager
    def cluster(environment: dict[str, str], nodes: int) -> Iterator[int]:
        started.append(nodes)
        yield nodes

    def measure_on(nodes: int, environment: dict[str, str], trials: int, length: float) -> Found:
        return Found(nodes, trials, length)

    fakes: dict[str, Any] = {
        "Nodes": cluster,
        "measure_on": measure_on,
        "private_environment": contextlib.nullcontext,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(scaling, name, fake)
    out = tmp_path / "found.jsonl"
    command = ["--nodes", "1", "4", "--length", "2", "10", "--per-node", "3", "--out", str(out)]
    assert scaling.main(command) == 0
    assert started == [1, 4]
    found = [tuple(json.loads(line).values()) for line in out.read_text().splitlines()]
    assert found == [(1, 3, 2.0), (1, 3, 10.0), (4, 12, 2.0), (4, 12, 10.0)]
