"""The count of a worker group's parts: each number is told once, and an actor that goes ends the telling."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from study.executors import progress_actor
from study.executors.progress_actor import count_progress


class FakeTally:
    """Answers in this process what the actor would: 0, 0, 1, nothing yet, 3, and then its node goes."""

    def __init__(self) -> None:
        self.answers = iter([0, 0, 1, ray.exceptions.GetTimeoutError(), 3, ray.exceptions.RayError()])
        self.gone = threading.Event()
        self.done = SimpleNamespace(remote=lambda: next(self.answers))


def test_changes_are_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fake, killed, asked = FakeTally(), list[Any](), dict[str, Any]()

    def get(answer: object, timeout: float) -> object:
        if isinstance(answer, Exception):
            fake.gone.set() if not isinstance(answer, ray.exceptions.GetTimeoutError) else None
            raise answer
        return answer

    def options(**given: Any) -> Any:
        asked.update(given)
        return SimpleNamespace(remote=lambda: fake)

    monkeypatch.setattr(progress_actor, "EVERY_S", 0)
    monkeypatch.setattr(progress_actor, "ProgressActor", SimpleNamespace(options=options))
    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "kill", killed.append)
    told: list[int] = []
    with count_progress(told.append, "node:head") as tally:
        assert tally is fake
        assert fake.gone.wait(10)  # it is not asked again: there is no further answer
        time.sleep(0.01)
    assert told == [0, 1, 3]
    assert asked == {"resources": {"node:head": 0.001}}
    assert killed == [fake]
