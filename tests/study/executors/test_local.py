"""One trial after the other in this process: in order, told what came of each, errors of ours raised."""

from __future__ import annotations

import dataclasses

import pytest

from mipoison.storage.files import StorageError
from study.executors import local
from study.executors.local import LocalExecutor
from study.trial.failure import FailureKind, TrialFailure
from study.trial.spec import TrialResult, TrialSpec
from tests.study.executors.helpers import SPEC


def specs(n: int) -> list[TrialSpec]:
    return [dataclasses.replace(SPEC, trial=f"t{i}") for i in range(n)]


def test_asked_and_told_in_turn_and_no_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []
    todo = iter([*specs(3), None])

    def execute(spec: TrialSpec) -> dict[str, float]:
        if spec.trial == "t1":
            raise StorageError("disk full")
        return {"episodes": 1.0}

    def ask() -> TrialSpec | None:
        events.append("ask")
        return next(todo)

    monkeypatch.setattr(local, "run_and_record", execute)
    LocalExecutor().search(9, ask, lambda spec, end: events.append((spec.trial, end)))
    failure = TrialFailure(kind=FailureKind.STORAGE, message="disk full")
    fine = {"episodes": 1.0}
    assert events == ["ask", ("t0", fine), "ask", ("t1", failure), "ask", ("t2", fine), "ask"]


def test_an_error_of_ours_is_raised_to_be_debugged(monkeypatch: pytest.MonkeyPatch) -> None:
    def execute(spec: TrialSpec) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(local, "run_and_record", execute)
    with pytest.raises(ZeroDivisionError):
        LocalExecutor().search(1, lambda: SPEC, lambda spec, end: None)


def test_anchors_come_after_their_scenes_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = ({"seed": 0}, {"seed": 1})
    anchors = [dataclasses.replace(s, scenes=scenes) for s in specs(2)]
    done: list[object] = []
    monkeypatch.setattr(local, "prepare_scene", lambda scene, *rest: (done.append(scene["seed"]), (1, 2))[1])
    monkeypatch.setattr(local, "run_trial", lambda spec: (done.append(spec.trial), TrialResult([], {}))[1])
    parts: list[tuple[int, int]] = []
    results = LocalExecutor().anchors(anchors, lambda i, of: parts.append((i, of)))
    assert done == [0, 1, "t0", "t1"]
    assert parts == [(i, 4) for i in range(4)]
    assert [(r.made, r.reused) for r in results] == [(2, 4), (0, 0)]  # the preparation is counted once


def test_each_spec_has_its_result_or_its_error_in_order() -> None:
    def work(spec: TrialSpec) -> str:
        if spec.trial == "t1":
            raise ZeroDivisionError("no")
        return spec.trial

    first, error, last = LocalExecutor().each(work, specs(3))
    assert (first, last) == ("t0", "t2")
    assert isinstance(error, ZeroDivisionError)
