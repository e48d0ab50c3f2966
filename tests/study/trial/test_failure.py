"""The kind of a TrialFailure follows from the exception, also through processes, JSON and records."""

from __future__ import annotations

import dataclasses
import json
import pickle

import pytest
import torch
from ray.train.v2.api.exceptions import WorkerGroupError

from mipoison.storage.files import StorageError
from study.executors.losses import NODE_RETRIES, RETRIES, Loss, failure_of, loss_of
from study.trial.failure import FailureKind, LostError, TrialFailure

SETTING, MACHINE, STORAGE = FailureKind.SETTING, FailureKind.MACHINE, FailureKind.STORAGE


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (ValueError("too small\nand more"), SETTING, "ValueError: too small"),
        (FileNotFoundError("no such image"), SETTING, "FileNotFoundError: no such image"),
        (LostError("killed"), MACHINE, "LostError: killed"),
        (MemoryError("no more"), MACHINE, "MemoryError: no more"),
        (OSError("too many files"), MACHINE, "OSError: too many files"),
        (torch.OutOfMemoryError("CUDA"), MACHINE, "OutOfMemoryError: CUDA"),
        (StorageError("storage 'x': cannot write: full"), STORAGE, "storage 'x': cannot write: full"),
    ],
)
def test_the_kind_follows_the_exception(error: Exception, kind: FailureKind, message: str) -> None:
    assert TrialFailure.of(error) == TrialFailure(kind=kind, message=message)


def test_a_storage_failure_is_found_behind_other_exceptions() -> None:
    behind = LostError("the anchors were lost 4 times")
    behind.__cause__ = WorkerGroupError("[Rank 1]", {1: StorageError("away")})
    assert TrialFailure.of(behind) == TrialFailure(kind=STORAGE, message="away")


@pytest.mark.parametrize("kind", FailureKind)
def test_a_failure_travels(kind: FailureKind) -> None:
    failure = TrialFailure(kind=kind, message="why: it: failed")
    assert pickle.loads(pickle.dumps(failure)) == failure
    assert TrialFailure.from_plain(json.loads(json.dumps(failure.plain()))) == failure
    with pytest.raises(dataclasses.FrozenInstanceError):
        failure.message = "other"  # type: ignore[misc]


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="weather"):
        TrialFailure.from_plain({"kind": "weather", "message": "rain"})


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        ("failed", "LostError: WorkerCrashedError: killed", MACHINE),
        ("failed", "MemoryError", MACHINE),
        ("failed", "OSError: [Errno 24] Too many open files", MACHINE),
        ("failed", "FloatingPointError: kl = nan: not finite", SETTING),
        ("failed", "RuntimeError: LostError: in another's words", SETTING),
        ("ok", None, None),
        ("cut", "not run: after 2 of 4 episodes the label-only anchor dominated", None),
    ],
)
def test_records_tell_the_kind(status: str, error: str | None, kind: FailureKind | None) -> None:
    failure = TrialFailure.of_record({"status": status, "error": error})
    assert (None if failure is None else failure.kind) == kind
    assert failure is None or failure.message == error


def test_what_ray_says_is_the_machines_fault_with_its_number_of_tries() -> None:
    assert Loss.NODE.failure().message.endswith(f"; {1 + NODE_RETRIES} times")
    assert Loss.PROCESS.failure().message.endswith(f"; {1 + RETRIES} times")
    for text in ("its node has died", "SIGKILL", "the node running low on memory"):
        assert loss_of(text).failure().kind is MACHINE


def test_what_train_wraps_is_told_apart() -> None:
    assert failure_of(WorkerGroupError("x", {0: RuntimeError("died")})).kind is MACHINE
    assert failure_of(WorkerGroupError("x", {0: StorageError("away")})).kind is STORAGE
    assert failure_of(ValueError("a bug")).kind is SETTING
