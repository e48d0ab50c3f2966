"""The state of a running study: ask and tell, running trials, known settings, study.json."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mipoison.config import Knob
from mipoison.defenses.rounding import RoundingConfig
from study.session import study as study_module
from study.session.opening import open_study
from study.session.study import Study, write_study_file
from study.settings.study_settings import StudySettings
from study.trial.spec import FinishedTrial, TrialSpec

OUTCOME = {
    "confidence_distortion": 0.5,
    "worst_attack_accuracy": 0.9,
    "worst_reconstruction_error": 0.1,
    "accuracy_drop": 0.0,
    "failed": 0.0,
    "cut": 0.0,
}


def opened(root: Path, **changes: Any) -> Study:
    given: dict[str, Any] = {"storage": str(root), "name": "s", "executor": "local", "trials": 3}
    return open_study(StudySettings(**given | changes), Console(file=io.StringIO()))


def finished(spec: TrialSpec, status: str = "ok") -> FinishedTrial:
    row = {"status": status, "defense": spec.defense, "attack": "passive", "seed": 0}
    return FinishedTrial(spec.trial, spec.defense, spec.knobs, [row], OUTCOME)


def asked(study: Study) -> TrialSpec:
    spec = study.ask()
    assert spec is not None
    return spec


def test_a_trial_is_written_down_before_it_starts_and_known_once_told(tmp_path: Path) -> None:
    study = opened(tmp_path, defenses=("noise", "rounding"))
    first, second = asked(study), asked(study)
    assert [first.trial, second.trial] == ["t0001-noise", "t0002-rounding"]
    stored = json.loads((tmp_path / "s" / "trials" / f"{first.trial}.json").read_text())
    assert stored == {"defense": "noise", "knobs": dict(first.knobs), "attempt": 0}
    assert (study.progress().running, study.progress().done, study.trials_left()) == (2, 0, 3)
    study.tell(finished(first))
    study.tell(finished(second, "failed"))
    progress = study.progress()
    assert (progress.running, progress.done, progress.failed, progress.planned) == (0, 2, 1, 3)
    assert progress.quality is not None
    assert progress.quality[0] == 0.9
    assert study.trials_left() == 1
    assert len(study.known) == 2


def test_no_setting_is_asked_twice_and_an_exhausted_space_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six settings: those under way and those that are known are not asked again."""
    monkeypatch.setattr(RoundingConfig, "KNOBS", {"steps": Knob(low=96, high=101, integer=True)})
    study = opened(tmp_path, defenses=("rounding",), trials=9)
    running = [asked(study) for _ in range(3)]
    for spec in running[:2]:
        study.tell(finished(spec))
    more = []
    while (spec := study.ask()) is not None:
        more.append(spec)
    steps = [RoundingConfig(**spec.knobs).units for spec in (*running, *more)]
    assert sorted(steps) == [5, 10, 96, 97, 98, 99, 100, 101]  # 5, 10: starts outside the range


def test_the_quality_is_computed_once_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    measure = study_module.quality
    monkeypatch.setattr(study_module, "quality", lambda *given: (calls.append(1), measure(*given))[1])
    study = opened(tmp_path)
    assert study.progress().quality is None
    for n in (1, 2):
        spec = asked(study)
        study.progress()
        study.tell(finished(spec))
        study.progress()
        study.progress()
        assert len(calls) == n


def test_a_study_says_once_what_it_was_begun_with(tmp_path: Path) -> None:
    study = opened(tmp_path)
    study.begin(["--trials", "3"])
    study.begin(["--resume"])
    about = json.loads((tmp_path / "s" / "study.json").read_text())
    assert set(about) == {"settings", "command", "content", "versions", "source", "started", "margin"}
    assert about["command"] == ["--trials", "3"]
    assert about["settings"] == json.loads(json.dumps(study.settings.identity()))
    other = opened(tmp_path, name="other").records
    write_study_file(other, {"seeds": 1})
    assert set(json.loads((tmp_path / "other" / "study.json").read_text())) == set(about) - {
        "command",
        "content",
        "margin",
    }
