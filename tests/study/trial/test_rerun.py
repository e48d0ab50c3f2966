"""A trial once more: its rerun_spec is the recorded one, differences count missing numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mipoison.config import ConfigError
from mipoison.scene import SceneConfig
from study.records.finished import load
from study.trial.rerun import differences, rerun_spec, scenes_in, to_records, trial_rows, with_folder
from tests.study.test_evaluate import searched


def test_specification_is_the_recorded_trial(small_study: Path) -> None:
    study = load(small_study)
    trial = searched(small_study, "lpa")
    started = json.loads((small_study / "trials" / f"{trial}.json").read_text())
    spec = rerun_spec(study, trial=trial, knobs=[], root="root", data_root=None)
    assert dict(spec.knobs) == started["knobs"]
    assert [scene["seed"] for scene in spec.scenes] == [0, 1]
    assert {(s["limit"], s["victim_steps"], s["decoder_steps"]) for s in spec.scenes} == {(100, 40, 20)}
    assert set(spec.attackers) == {"class-mean", "ridge", "passive", "label-only"}
    changed = rerun_spec(study, trial=trial, knobs=["budget=0.25"], root="root", data_root=None)
    assert dict(changed.knobs) == started["knobs"] | {"budget": 0.25}
    assert changed.trial == "again-lpa"  # no recorded trial any more
    assert scenes_in(trial_rows(study, trial))[1].seed == 1


def test_a_folder_of_images_may_have_moved() -> None:
    scenes = (SceneConfig(dataset="folder:/gone/faces", seed=3),)
    assert with_folder(scenes, None) == scenes
    (found,) = with_folder(scenes, "folder:here")
    assert (found.dataset, found.seed) == ("folder:here", 3)
    for wrong in ("digits", "facescrub:here"):
        with pytest.raises(ConfigError, match="these records are of 'folder'"):
            with_folder(scenes, wrong)
    with pytest.raises(ConfigError, match="these records are of 'digits'"):
        with_folder((SceneConfig(dataset="digits"),), "folder:here")


def test_differences_count_missing_numbers(small_study: Path) -> None:
    rows = trial_rows(load(small_study), "none")
    n, found = differences(rows, rows)
    assert found == []
    assert n > 100
    gone = rows.assign(ssim=None, seconds_attack=0.0)  # what a clock tells is not compared
    _, found = differences(rows, gone)
    assert {d.column for d in found} == {"ssim"}
    assert len(found) == len(rows)
    assert to_records(gone)[0]["ssim"] is None
