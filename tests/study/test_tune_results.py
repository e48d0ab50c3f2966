"""What Tune makes of a trial's result on its way to the study: nothing of the outcome is lost."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from ray._private.dict import flatten_dict

from study import tuning
from study.crew import Crew
from study.spec import TrialSpec
from study.tuning import RETRIES, Driver

SPEC = TrialSpec(
    study="s",
    max_accuracy_drop=0.02,
    trial="t0001-noise",
    attempt=0,
    defense="noise",
    knobs={"budget": 0.1},
    attackers=("passive",),
    scenes=(),
    root="unused",
    data_root=None,
)
OUTCOME = {
    "worst_attack_accuracy": 0.1 + 0.2,
    "worst_reconstruction_error": None,
    "episodes": 2.0,
    "cut": 1.0,
}


def told(result: dict[str, Any] | None, error: bool = False) -> tuple[Any, str | None]:
    """What the study hears of a trial that ended so, after Tune has flattened its result."""
    heard: list[tuple[Any, str | None]] = []
    driver = Driver(
        lambda: SPEC, lambda _, outcome, reason: heard.append((outcome, reason)), Crew(0, 1, 0, True), 1
    )
    while not heard:  # a lost process is tried again a few times
        assert isinstance(driver.suggest("a"), dict)
        driver.on_trial_complete("a", None if result is None else flatten_dict(result), error)
    assert driver.suggest("b") == Driver.FINISHED
    return heard[0]


def run() -> dict[str, Any]:
    return tuning.trainable(
        {"spec": dataclasses.asdict(SPEC), "crew": dataclasses.asdict(Crew(0, 1, 0, True))}
    )


def test_the_outcome_arrives_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "execute", lambda spec: OUTCOME)
    assert told(run()) == (OUTCOME, None)


def test_an_error_arrives_as_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(spec: TrialSpec) -> None:
        raise ValueError("too small\nand more")

    monkeypatch.setattr(tuning, "execute", broken)
    assert told(run()) == (None, "ValueError: too small")


@pytest.mark.parametrize(("result", "error"), [(None, True), ({}, False), ({"training_iteration": 1}, False)])
def test_a_lost_process_is_a_reason_too(result: dict[str, Any] | None, error: bool) -> None:
    outcome, reason = told(result, error)
    assert outcome is None
    assert reason is not None
    assert "lost" in reason
    assert f"{1 + RETRIES} times" in reason
