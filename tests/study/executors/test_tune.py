"""A trial's outcome and failure pass through Tune to the study unchanged."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import pytest
from ray._private.dict import flatten_dict
from ray.train.v2.api.exceptions import WorkerGroupError

from mipoison.storage.files import StorageError
from study.executors import tune as tuning
from study.executors.losses import RETRIES
from study.executors.tune import TuneSearcher
from study.executors.worker_group import WorkerGroup
from study.trial.failure import FailureKind, TrialFailure
from study.trial.run import Outcome
from study.trial.spec import TrialSpec
from tests.study.executors.helpers import CREW, SPEC

OUTCOME = {
    "worst_attack_accuracy": 0.1 + 0.2,
    "worst_reconstruction_error": None,
    "episodes": 2.0,
    "cut": 1.0,
}


def told(result: dict[str, Any] | None, error: bool = False) -> Outcome | TrialFailure:
    """What the study is told of a trial with this result, after Tune has flattened it."""
    heard: list[Outcome | TrialFailure] = []
    driver = TuneSearcher(lambda: SPEC, lambda _, end: heard.append(end), CREW, 1)
    while not heard:  # a lost process is tried again a few times
        assert isinstance(driver.suggest("a"), dict)
        driver.on_trial_complete("a", None if result is None else flatten_dict(result), error)
    assert driver.suggest("b") == TuneSearcher.FINISHED
    return heard[0]


def run(workers: int = 0) -> dict[str, Any]:
    worker_group = WorkerGroup(workers, 1, 0, True)
    return tuning.trainable(
        {"spec": dataclasses.asdict(SPEC), "worker_group": dataclasses.asdict(worker_group)}
    )


def test_the_outcome_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "run_and_record", lambda spec: OUTCOME)
    assert told(run()) == OUTCOME


def test_an_error_arrives_as_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(spec: TrialSpec) -> None:
        raise ValueError("too small\nand more")

    monkeypatch.setattr(tuning, "run_and_record", broken)
    assert told(run()) == TrialFailure(kind=FailureKind.SETTING, message="ValueError: too small")


def test_a_storage_failure_arrives_as_one_after_its_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception in this process, and one of a worker that Train has wrapped."""
    tries: list[str] = []
    away = StorageError("storage 's3://b': cannot write")

    def alone(spec: TrialSpec) -> None:
        tries.append("alone")
        raise away

    def in_a_group(self: WorkerGroup, *args: Any) -> None:
        tries.append("group")
        raise WorkerGroupError("[Rank 0]", {0: away})

    monkeypatch.setattr(tuning, "RETRY_WAIT_S", 0)
    monkeypatch.setattr(tuning, "run_and_record", alone)
    monkeypatch.setattr(WorkerGroup, "train", in_a_group)
    expected = TrialFailure(kind=FailureKind.STORAGE, message="storage 's3://b': cannot write")
    assert told(run()) == expected
    assert told(run(workers=2)) == expected
    assert tries == ["alone"] * (1 + RETRIES) + ["group"] * (1 + RETRIES)


def test_a_lost_worker_group_is_the_machines_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(self: WorkerGroup, *args: Any) -> None:
        raise WorkerGroupError("[Rank 1]", {1: RuntimeError("died")})

    monkeypatch.setattr(tuning, "RETRY_WAIT_S", 0)
    monkeypatch.setattr(WorkerGroup, "train", lost)
    end = told(run(workers=2))
    assert isinstance(end, TrialFailure)
    assert (end.kind, end.message.partition(":")[0]) == (FailureKind.MACHINE, "WorkerGroupError")


@pytest.mark.parametrize(("result", "error"), [(None, True), ({}, False), ({"training_iteration": 1}, False)])
def test_a_lost_process_is_a_reason_too(result: dict[str, Any] | None, error: bool) -> None:
    end = told(result, error)
    assert isinstance(end, TrialFailure)
    assert end.kind is FailureKind.MACHINE
    assert "lost" in end.message
    assert f"{1 + RETRIES} times" in end.message


def test_the_searcher_can_be_pickled_and_is_never_restored(tmp_path: Path) -> None:
    """Tune pickles it now and then: neither the study nor a space of lambdas may be in it."""
    searcher = TuneSearcher(lambda: None, lambda spec, end: None, WorkerGroup(0, 1, 0, True), 3)
    state = pickle.loads(pickle.dumps(searcher)).__dict__
    assert state == {"n": 3}
    searcher.save(str(tmp_path / "snapshot"))
    assert (tmp_path / "snapshot").read_bytes() == b""
    with pytest.raises(RuntimeError, match="--resume"):
        searcher.restore(str(tmp_path / "snapshot"))
    pickle.dumps(dataclasses.asdict(WorkerGroup(0, 1, 0, True)))


def test_a_searcher_waits_for_trials_that_may_come_back() -> None:
    searcher = TuneSearcher(lambda: SPEC, lambda spec, end: None, CREW, 1)
    searcher.suggest("a")
    assert searcher.suggest("b") is None  # not FINISHED: the trial may be lost yet
    searcher.on_trial_complete("a", error=True)
    assert isinstance(searcher.suggest("c"), dict)
    searcher.on_trial_complete("c", {"outcome": "{}"})
    assert searcher.suggest("d") == TuneSearcher.FINISHED
