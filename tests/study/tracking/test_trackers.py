"""Trackers: their copies equal the records, and a failing tracker does not affect the study."""

from __future__ import annotations

from study.tracking import Trackers
from study.trial.spec import FinishedTrial


class Broken:
    told = 0

    def finished(self, done: FinishedTrial) -> None:
        self.told += 1
        raise OSError("no space left")

    def close(self) -> None:
        raise AssertionError("dropped trackers are not called again")


def test_a_tracker_that_fails_is_dropped_with_a_warning() -> None:
    broken, said = Broken(), list[str]()
    trackers = Trackers({"the copy": broken}, said.append)
    done = FinishedTrial("t0001-noise", "noise", {}, [], {})
    trackers.finished(done)
    trackers.finished(done)
    trackers.close()
    assert broken.told == 1
    assert said == ["the copy is no longer updated (OSError: no space left); the records are not affected"]
