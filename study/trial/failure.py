"""Why a trial has no outcome, as a value that travels from the worker to the driver and into the records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mipoison.storage.files import storage_failure


class LostError(RuntimeError):
    """A process was lost (its machine went, it was killed, or ran out of memory): no fault of the setting."""


class FailureKind(StrEnum):
    """What was at fault; it decides what the study does next.

    ``SETTING``: the trial's own computation raised. It is recorded as failed; a resumed study does not repeat
    it. ``MACHINE``: the process, its memory or its machine went. It is recorded as failed; a resumed study
    tries it again. ``STORAGE``: nothing can be recorded. The trial is left unfinished, the study ends, and a
    resumed study runs the trial again.
    """

    SETTING = "setting"
    MACHINE = "machine"
    STORAGE = "storage"


MACHINE_ERRORS = ("LostError", "MemoryError", "OutOfMemoryError", "OSError")
"""Names of the exceptions that tell of the machine; records keep an exception as ``name: message``."""


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """Why a trial has no outcome.

    Attributes:
        kind: what was at fault.
        message: one line; names the exception, but for a storage failure, whose message says all.
    """

    kind: FailureKind
    message: str

    @classmethod
    def of(cls, error: BaseException) -> TrialFailure:
        """The failure behind an exception, of this process or of a worker whose exception was wrapped."""
        reason = storage_failure(error)
        if reason is not None:
            return cls(kind=FailureKind.STORAGE, message=reason)
        name = type(error).__name__
        return cls(kind=_kind_named(name), message=f"{name}: {error}".splitlines()[0])

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> TrialFailure | None:
        """What the record of an episode says of its failure; None where the episode did not fail."""
        if record["status"] != "failed":
            return None
        text = str(record["error"])
        return cls(kind=_kind_named(text.partition(":")[0]), message=text)

    @classmethod
    def from_plain(cls, values: Mapping[str, str]) -> TrialFailure:
        """The inverse of :meth:`plain`."""
        return cls(kind=FailureKind(values["kind"]), message=values["message"])

    def plain(self) -> dict[str, str]:
        """As values that JSON knows, for what is sent between processes."""
        return {"kind": self.kind.value, "message": self.message}


def _kind_named(name: str) -> FailureKind:
    return FailureKind.MACHINE if name in MACHINE_ERRORS else FailureKind.SETTING
