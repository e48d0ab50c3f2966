"""What Optuna is told: the chosen objectives, computed here slowly from the records, in their directions."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.study import StudyDirection
from rich.console import Console

from mipoison.config import ConfigError
from mipoison.defenses import ANCHORS
from study.executors.local import LocalExecutor
from study.records.constraints import Constraints
from study.search.objectives import (
    OBJECTIVES,
    OTHER_CLASSES,
    SHARED_CLASSES,
    chosen,
    default_names,
    directions,
)
from study.search.sampler import Search
from study.session.driver import run_study
from study.session.opening import objective_names, open_study
from study.session.study import Study
from study.settings.study_settings import StudySettings

TINY: dict[str, Any] = dict(
    screen=False,
    seeds=2,
    limit=100,
    victim_steps=10,
    decoder_steps=5,
    decoder_width=4,
    trials=3,
    defenses=("rounding", "lfp"),
    attackers=("ridge", "label-only"),
    executor="local",
    name="s",
    objectives=tuple(OBJECTIVES),
)


def opened(root: Path, **changes: Any) -> Study:
    return open_study(StudySettings(**TINY | {"storage": str(root)} | changes), Console(file=io.StringIO()))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, pd.DataFrame]:
    """A search with every objective, and its records: rounding is certified, lfp is not."""
    study = opened(tmp_path_factory.mktemp("objectives"))
    return study, run_study(study, LocalExecutor())


def slowly(rows: pd.DataFrame, floor: pd.DataFrame) -> dict[str, float]:
    """Every objective of one setting, by name; ``floor``: label-only's rows."""
    seeds = sorted(rows["seed"].unique())

    def least(frame: pd.DataFrame, column: str) -> float:
        by = [one[column].mean() for _, one in frame.groupby("attack")]
        return float(min(by))

    def largest(column: str) -> float:
        return max(float(one[column].mean()) for _, one in rows.groupby("attack"))

    def once_a_seed(column: str) -> float:
        return float(np.mean([rows[rows["seed"] == s][column].iloc[0] for s in seeds]))

    excess = [
        1 - least(rows, column) / least(floor, column)
        for column in ("reconstruction_error", "reconstruction_error_test")
    ]
    certified = rows[["certified_excess", "certified_excess_test"]].astype(float).to_numpy()
    return {
        "distortion": once_a_seed("confidence_distortion"),
        "order": once_a_seed("tail_rank_correlation"),
        "log-loss": once_a_seed("log_loss"),
        "brier": once_a_seed("brier_score"),
        "excess": max(0.0, *excess),
        "error": least(rows, "reconstruction_error"),
        "accuracy": largest("attack_accuracy"),
        "identification": max(largest("identification_auc"), largest("identification_auc_test")),
        "certified": 1.0 if np.isnan(certified).any() else float(certified.max()),
    }


def test_optuna_is_told_the_chosen_objectives_in_their_directions(
    finished: tuple[Study, pd.DataFrame],
) -> None:
    study, episodes = finished
    up = {"order", "error"}
    assert [d is StudyDirection.MAXIMIZE for d in study.search.study.directions] == [
        name in up for name in OBJECTIVES
    ]
    told = [t for t in study.search.study.trials if t.state.name != "WAITING"]  # a start not yet asked for
    assert [t.state.name for t in told] == ["COMPLETE"] * 3
    assert set(episodes["status"]) == {"ok"}  # nothing is cut where order is an objective
    floor = episodes[episodes["trial"] == "label-only"]
    searched = sorted(set(episodes["trial"]) - set(ANCHORS))
    kinds = set()
    for trial, name in zip(told, searched, strict=True):
        rows = episodes[episodes["trial"] == name]
        expected = slowly(rows, floor)
        assert dict(zip(OBJECTIVES, trial.values, strict=True)) == pytest.approx(expected, rel=1e-9)
        kinds.add((rows["defense"].iloc[0], bool(rows["certified_excess"].isna().any())))
    assert kinds == {("rounding", False), ("lfp", True)}  # no certificate counts as 1


def test_a_resumed_search_is_taught_the_same(finished: tuple[Study, pd.DataFrame]) -> None:
    study, _ = finished
    again = opened(Path(study.records.storage.root), resume=True)
    told = [
        {tuple(t.values): t.params for t in s.search.study.get_trials(states=[COMPLETE])}
        for s in (study, again)
    ]
    assert told[0] == told[1]
    assert len(told[0]) == 3
    with pytest.raises(ConfigError, match="objectives: "):
        opened(Path(study.records.storage.root), resume=True, objectives=("distortion", "error"))


COMPLETE = optuna.trial.TrialState.COMPLETE


def columns(names: tuple[str, ...]) -> list[str]:
    return [OBJECTIVES[name].column for name in names]


def test_an_older_study_goes_on_with_the_objectives_of_its_time(
    finished: tuple[Study, pd.DataFrame], tmp_path: Path
) -> None:
    assert list(opened(tmp_path, objectives=None).search.objectives) == [*SHARED_CLASSES]
    study = opened(tmp_path, objectives=None, name="older", trials=0)
    study.begin([])
    assert list(opened(tmp_path, objectives=None, name="older", resume=True).search.objectives) == [
        *SHARED_CLASSES
    ]
    path = tmp_path / "older" / "study.json"
    about = json.loads(path.read_text())
    del about["settings"]["objectives"]
    path.write_text(json.dumps(about))
    older = opened(tmp_path, objectives=None, name="older", resume=True)
    assert list(older.search.objectives) == ["distortion", "accuracy", "error"]


def test_the_default_is_identification_where_the_classes_are_shared() -> None:
    assert default_names("same") == ("distortion", "identification", "error")
    assert default_names("disjoint") == OTHER_CLASSES == ("distortion", "accuracy", "error")
    settings = StudySettings(auxiliary="disjoint")
    assert settings.objectives is None
    assert objective_names(settings, None) == OTHER_CLASSES
    assert objective_names(StudySettings(objectives=("error", "order")), None) == ("error", "order")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ("distortion", "eror"),
            r"unknown objective 'eror' \(did you mean 'error'\?\); choose from: accuracy",
        ),
        (("distortion",), "objectives = distortion: a frontier needs at least two; choose from: distortion"),
        (("error,error",), "objectives = error: a frontier needs at least two"),
        ((), "objectives = none: a frontier needs at least two"),
    ],
)
def test_bad_names_and_too_few_are_refused(given: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StudySettings(objectives=given)


def test_commas_separate_too() -> None:
    assert StudySettings(objectives=("order,certified", "error")).objectives == (
        "order",
        "certified",
        "error",
    )


def test_a_missing_certificate_counts_as_1_and_nothing_else_does() -> None:
    search = Search(
        ["noise"],
        sampler="random",
        seed=0,
        objectives=chosen(["certified", "error"]),
        constraints=Constraints(),
    )
    assert search.tell(search.ask().number, {"worst_reconstruction_error": 0.1})
    assert search.study.trials[0].values == [1.0, 0.1]
    assert not search.tell(search.ask().number, {"certified_excess_worst": 0.3})
    assert not search.tell(search.ask().number, {})
    assert not search.tell(search.ask().number, None)


def test_settings_are_cut_short_only_if_the_objectives_allow_it(
    finished: tuple[Study, pd.DataFrame],
) -> None:
    """Label-only has the worst order: a setting that it dominates otherwise may be wanted."""
    study, _ = finished
    assert study.floor() is None
    study.search.objectives = chosen(["distortion", "identification", "error", "certified", "excess"])
    assert study.floor() is not None
    study.search.constraints = Constraints(max_confidence_distortion=1e-6)
    assert study.floor() is None  # label-only is not feasible: what it dominates may be all that is


def test_directions_are_optunas() -> None:
    assert directions(chosen(["order", "brier"])) == {
        "tail_rank_correlation": "maximize",
        "brier_score": "minimize",
    }
