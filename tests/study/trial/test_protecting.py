"""A recorded setting as a unit: it releases what the study's episodes released."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mipoison.config import ConfigError
from mipoison.deployment import PARTS, deploy, release
from study.records.finished import load
from study.trial.protecting import COMPARED, chosen, differing, protect, released_as_measured, trial_named
from study.trial.rerun import GivenVictim
from tests.study.test_evaluate import searched


@pytest.mark.parametrize("defense", ["lpa", "rounding", "tail-noise", "label-only"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_unit_releases_what_the_episodes_released(small_study: Path, defense: str, seed: int) -> None:
    study = load(small_study)
    trial = defense if defense == "label-only" else searched(small_study, defense)
    setting = chosen(study, trial, seed=seed)
    unit, scene, measured = protect(study, setting, str(small_study.parent), None)
    rows = study.episodes[(study.episodes["trial"] == trial) & (study.episodes["seed"] == seed)]
    assert set(setting.recorded) == set(COMPARED)
    for name in COMPARED:
        assert measured[name] == rows[name].dropna().iloc[0]  # to the last digit
    # By the library's own way from a setting to vectors, which knows no unit.
    episode = release(deploy(scene, setting.defense, setting.config)).vectors
    again = released_as_measured(unit, scene)
    assert all(torch.equal(again[part], episode[part]) for part in PARTS)


def test_a_trial_by_its_number_or_its_name(small_study: Path) -> None:
    study = load(small_study)
    trial = searched(small_study, "lpa")
    assert trial_named(study, trial) == trial_named(study, trial.partition("-")[0]) == trial
    assert trial_named(study, "none") == "none"
    with pytest.raises(ConfigError, match=f"unknown setting 't9999'.*{trial}"):
        trial_named(study, "t9999")


def test_what_cannot_be_rebuilt_is_refused(small_study: Path) -> None:
    study = load(small_study)
    with pytest.raises(ConfigError, match="seed = 7: this study has 0, 1"):
        chosen(study, "none", seed=7)
    with pytest.raises(ConfigError, match="trained its own classifier"):
        chosen(study, "none", given=GivenVictim("net:make"))
    study.episodes["scene.victim"] = "net:make"
    with pytest.raises(ConfigError, match="--victim"):
        chosen(study, "none")


def test_values_are_compared_relatively() -> None:
    for measured, recorded, same in [
        (0.1001, 0.1, True),
        (0.102, 0.1, False),
        (0.0, 0.0, True),
        (1e-4, 0.0, False),
    ]:
        assert (differing({"kl": measured}, {"kl": recorded}) == []) is same
    assert differing({"kl": 0.3}, {}) == []
    # Another victim of the same distortion, as of a defense that uses up its budget.
    here = {"confidence_distortion": 0.00905, "model_accuracy": 0.864, "kl": 0.0168}
    there = {"confidence_distortion": 0.00902, "model_accuracy": 0.832, "kl": 0.0138}
    assert differing(there, here) == ["model_accuracy", "kl"]
