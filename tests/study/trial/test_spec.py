"""A trial as plain values: its episodes, the one place that describes it, and what came of it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from mipoison.config import ConfigError
from mipoison.scene import SceneConfig
from study.records.constraints import Constraints
from study.trial.spec import FinishedTrial, TrialResult, TrialTemplate
from tests.study.trial.helpers import SEEDS, spec_of


def test_episodes_are_every_attacker_on_every_seed(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "noise", {"budget": 0.25})
    episodes = spec.episodes()
    assert [(e.scene.seed, e.attack) for e in episodes] == [(s, a) for s in SEEDS for a in spec.attackers]
    assert {e.defense_config.budget for e in episodes} == {0.25}  # type: ignore[attr-defined]
    assert len({e.episode_id for e in episodes}) == len(episodes)
    with pytest.raises(ConfigError, match="budget"):
        spec_of(tmp_path, "noise", {"budget": -1.0}).episodes()


def test_a_spec_travels_as_json(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, "lpa", {"budget": 0.25})
    stored = json.loads(json.dumps(dataclasses.asdict(spec)))
    again = type(spec)(**stored | {k: tuple(stored[k]) for k in ("attackers", "scenes")})
    assert [e.episode_id for e in again.episodes()] == [e.episode_id for e in spec.episodes()]


def test_one_place_describes_a_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scenes = (SceneConfig(seed=3), SceneConfig(seed=4))
    template = TrialTemplate(
        study="s",
        root="r",
        data_root="data",
        constraints=Constraints(max_accuracy_drop=0.1, min_top2_agreement=0.5),
        attackers=("passive", "ridge"),
        scenes=scenes,
    )
    spec = template.spec("t1", "noise", {"budget": 0.5}, attempt=2, floor=(1.0, 0.5, 0.1))
    assert (spec.trial, spec.attempt, spec.floor) == ("t1", 2, (1.0, 0.5, 0.1))
    assert Constraints(**spec.constraints) == Constraints(max_accuracy_drop=0.1, min_top2_agreement=0.5)
    assert spec.attackers == ("ridge", "passive")  # the cheap ones first
    assert spec.data_root == str(tmp_path / "data")  # workers have other current folders
    assert [SceneConfig(**scene) for scene in spec.scenes] == list(scenes)
    assert template.spec("t2", "noise", {}, attackers=("knn",)).attackers == ("knn",)
    assert dataclasses.replace(template, data_root=None).spec("t", "none", {}).data_root is None


def test_artifacts_add_up_and_failures_are_seen() -> None:
    result = TrialResult([], {"truth": np.zeros((1, 1, 2, 2), np.uint8)}, made=1)
    result.count(2, 3)
    assert (result.made, result.reused) == (3, 3)
    for statuses, failed in ((["ok", "cut"], False), (["ok", "failed"], True), ([], False)):
        rows = [{"status": status} for status in statuses]
        assert FinishedTrial("t", "noise", {}, rows, {}).failed is failed
