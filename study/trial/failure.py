"""The reason why a trial has no outcome, as a value that workers send to the driver."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mipoison.storage.files import storage_failure


class LostError(RuntimeError):
    """A process was lost: its machine failed, it was killed, or it ran out of memory."""


class FailureKind(StrEnum):
    """The cause of a failure, which decides what the study does next.

    ``SETTING``: the trial's computation raised. The trial is recorded as failed, and a resumed study does not
    repeat it. ``MACHINE``: the process was lost or ran out of memory. The trial is recorded as failed, and a
    resumed study runs it again. ``STORAGE``: nothing can be recorded. The trial stays unfinished, the study
    ends, and a resumed study runs the trial again.
    """

    SETTING = "setting"
    MACHINE = "machine"
    STORAGE = "storage"


MACHINE_ERRORS = ("LostError", "MemoryError", "OutOfMemoryError", "OSError")
"""Names of the exceptions that mean ``MACHINE``; records store an exception as ``name: message``."""


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """Why a trial has no outcome.

    Attributes:
        kind: the cause.
        message: one line, ``name: message`` of the exception; for a storage failure the message alone.
    """

    kind: FailureKind
    message: str

    @classmethod
    def of(cls, error: BaseException) -> TrialFailure:
        """The failure that an exception stands for; also finds a storage failure that another one wraps."""
        reason = storage_failure(error)
        if reason is not None:
            return cls(kind=FailureKind.STORAGE, message=reason)
        name = type(error).__name__
        return cls(kind=_kind_named(name), message=f"{name}: {error}".splitlines()[0])

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrialFailure | None:
        """The failure in the record of an episode; None if the episode did not fail."""
        if record["status"] != "failed":
            return None
        text = str(record["error"])
        return cls(kind=_kind_named(text.partition(":")[0]), message=text)

    @classmethod
    def from_plain(cls, values: Mapping[str, str]) -> TrialFailure:
        """The inverse of :meth:`plain`."""
        return cls(kind=FailureKind(values["kind"]), message=values["message"])

    def plain(self) -> dict[str, str]:
        """The failure as JSON values, to be sent between processes."""
        return {"kind": self.kind.value, "message": self.message}


def _kind_named(name: str) -> FailureKind:
    return FailureKind.MACHINE if name in MACHINE_ERRORS else FailureKind.SETTING
