"""What a trial has finished is kept: a second run reads it back, an interrupted one goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mipoison import scene as scenes_module
from mipoison.defenses.lpa import LPA
from mipoison.scene import SceneConfig
from mipoison.storage.artifacts import ArtifactStore
from study.trial import worker
from study.trial.spec import TrialResult
from study.trial.worker import failed_trial, run_trial
from tests.study.trial.helpers import DEFENDED, break_attack, expect_same, spec_of

# ---------------------------------------------------------------- nothing is repeated


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Kinds of the artifacts that are made from here on."""
    found: list[str] = []
    store = ArtifactStore._store

    def seen(self: ArtifactStore, kind: str, *args: Any) -> None:
        found.append(kind)
        store(self, kind, *args)

    monkeypatch.setattr(ArtifactStore, "_store", seen)
    scenes_module._remembered.cache_clear()
    yield found
    scenes_module._remembered.cache_clear()


def test_a_second_run_reads_everything_back(
    root: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, "lpa", DEFENDED["lpa"])
    first = run_trial(spec)
    # The models are there; a label-only attacker's network is kept, one a seed.
    assert sorted(made) == ["attacker"] * 2 + ["episode"] * 4
    made.clear()
    scenes_module._remembered.cache_clear()
    monkeypatch.setattr(worker, "attack_and_measure", None)
    monkeypatch.setattr(LPA, "fit", None)
    second = run_trial(dataclasses.replace(spec, trial="t0002-y", study="other", attempt=3))
    assert made == []
    assert all(
        scenes_module.scene_for(SceneConfig(**s), str(root), None).store.made == 0 for s in spec.scenes
    )
    assert second.records == first.records  # seconds and all
    expect_same(second, first)


def test_an_interrupted_trial_goes_on_where_it_was(
    root: Path, alone: dict[str, TrialResult], made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of(root, "noise", DEFENDED["noise"])
    with monkeypatch.context() as patch:
        break_attack(patch, "label-only", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec)
    assert made == ["episode"]
    expect_same(run_trial(spec), alone["noise"])
    assert [kind for kind in made if kind == "episode"] == ["episode"] * 4


def test_a_lost_trial_keeps_what_it_had_finished(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(root, "noise", {"budget": 0.06})
    with monkeypatch.context() as patch:
        break_attack(patch, "label-only", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            run_trial(spec)
    lost = failed_trial(spec, "WorkerCrashedError: killed")
    assert [r["status"] for r in lost.records] == ["ok", "failed", "failed", "failed"]
    assert {r["error"] for r in lost.records[1:]} == {"LostError: WorkerCrashedError: killed"}
    assert [r["episode_id"] for r in lost.records] == [e.episode_id for e in spec.episodes()]
    assert set(lost.pictures) == {"truth", "passive"}
