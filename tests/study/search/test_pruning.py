"""Pruning: does not change the frontier, is the same on every rank, and is distinct from failures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mipoison.attacks import ATTACKS
from study import pareto
from study.analysis.frontier import configuration_table, pareto_front
from study.records.constraints import Constraints
from study.search.pruning import dominated, stages, worst_point
from study.session.driver import failed_share, pruned_counts
from study.trial.run import outcome_of
from study.trial.worker import run_trial
from tests.study.analysis.helpers import record
from tests.study.trial.conftest import prepared, root
from tests.study.trial.helpers import SEEDS, expect_same, measured, spec_of
from tests.study.trial.test_worker import Baton

__all__ = ["prepared", "root"]  # fixtures

CHEAP, DEAR = ("ridge", "knn"), ("passive", "tuned")
FLOOR = "label-only"


def suite(trial: str, defense: str, distortion: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """All records of a setting: random errors and accuracies, coarse enough for ties."""
    return [
        record(trial, defense, attack, seed, distortion=distortion,
               error=float(rng.integers(1, 6)) / 100, accuracy=float(rng.integers(3, 6)) / 5)
        for seed in range(2) for attack in (*CHEAP, *DEAR)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_the_front_is_that_of_the_whole_tables(seed: int) -> None:
    """Pruning never removes a setting from the front, and never leaves a dominated one on it."""
    rng = np.random.default_rng(seed)
    floor = suite(FLOOR, FLOOR, 0.03, rng)
    whole, cut = list(floor), list(floor)
    n_cut = 0
    for i in range(25):
        rows = suite(f"t{i:04d}", "noise", float(rng.integers(1, 7)) / 100, rng)
        whole += rows
        if dominated([r for r in rows if r["attack"] in CHEAP], worst_point(floor)):
            n_cut += 1
            gone = {"status": "cut", "attack_accuracy": None, "reconstruction_error": None}
            rows = [r if r["attack"] in CHEAP else r | gone for r in rows]
        cut += rows
    tables = [configuration_table(pd.DataFrame(rows), constraints=Constraints()) for rows in (whole, cut)]
    fronts = [pareto_front(t)["trial"].tolist() for t in tables]
    assert fronts[0] == fronts[1]
    assert int(tables[1]["cut"].sum()) == n_cut
    assert not set(tables[1].loc[tables[1]["cut"], "trial"]) & set(fronts[1])
    kept = ~tables[1]["cut"]
    assert (tables[1].loc[kept, "dominated_by"] <= tables[0].loc[kept, "dominated_by"]).all()


def test_some_random_table_is_cut() -> None:
    rng = np.random.default_rng(0)
    floor = worst_point(suite(FLOOR, FLOOR, 0.03, rng))
    assert any(dominated(suite("t", "noise", 0.06, rng)[:2], floor) for _ in range(50))


def test_domination_by_hand() -> None:
    rows = [record("t", "noise", "ridge", s, distortion=0.2, error=0.02, accuracy=0.9) for s in (0, 1)]
    assert dominated(rows, (0.1, 0.9, 0.02))  # less distortion, otherwise equal
    assert dominated(rows, (0.2, 0.9, 0.03))
    assert not dominated(rows, worst_point(rows))  # equal in everything
    assert not dominated(rows, (0.3, 0.5, 0.03))  # more distortion
    assert not dominated(rows, (0.1, 0.9, 0.01))  # a lower error
    assert not dominated(rows, None)
    assert not dominated([rows[0], rows[1] | {"status": "failed"}], (0.1, 0.9, 0.02))
    assert not dominated([*rows, record("t", "noise", "knn", 0)], (0.0, 0.0, 1.0))  # a seed is missing


def test_attackers_come_by_cost() -> None:
    names = ("tuned", "passive", "ridge", "knn", "distilled", "mlp")
    spec = spec_of(Path("/nowhere"), attackers=names)
    episodes = spec.episodes()
    found = stages(episodes, range(len(episodes)))
    assert [sorted({episodes[i].attack for i in stage}) for stage in found] == [
        ["knn", "mlp", "ridge"], ["passive"], ["distilled", "tuned"],
    ]  # fmt: skip
    assert sorted(i for stage in found for i in stage) == list(range(len(SEEDS) * len(names)))
    assert {ATTACKS[n].COST for n in names} == {0, 1, 2}


DOMINATING = (0.0, 0.0, 1.0)


def test_a_dominated_trial_runs_the_cheap_attackers_alone(root: Path) -> None:
    spec = spec_of(root, knobs={"budget": 0.05}, attackers=("ridge", "passive"))
    whole = run_trial(spec)
    short = run_trial(dataclasses.replace(spec, floor=DOMINATING))
    assert [r["status"] for r in whole.records] == ["ok"] * 4
    assert [r["status"] for r in short.records] == ["ok", "cut"] * 2  # although the store has all episodes
    assert measured(short.records)[::2] == measured(whole.records)[::2]
    gone = short.records[1]
    assert "reconstruction_error" not in gone
    assert "after 2 of 4 episodes" in gone["error"]
    assert set(short.pictures) == {"truth", "ridge"}
    frame = pd.DataFrame([r | {"trial": "t", "attempt": 0} for r in short.records])
    assert failed_share(frame) == 0
    broken = pd.DataFrame({"status": ["failed"] * 3 + ["ok"] + ["cut"] * 20})
    assert failed_share(broken) == 0.75  # of those that were run
    assert pruned_counts(frame) == (1, 2)
    outcome = outcome_of(short.records, Constraints())
    assert (outcome["failed"], outcome["cut"]) == (0, 2)
    assert outcome["worst_reconstruction_error"] == pytest.approx(
        np.mean([r["reconstruction_error"] for r in short.records if r["attack"] == "ridge"])
    )


def test_every_rank_takes_the_same_decision(root: Path) -> None:
    spec = spec_of(root, attackers=("ridge", "passive", "label-only"), floor=DOMINATING)
    alone = run_trial(dataclasses.replace(spec, root=str(root)))
    results = Baton(2).run(lambda rank: run_trial(spec, rank))
    for result in results:
        assert not isinstance(result, BaseException), result
        expect_same(result, alone)


@pytest.mark.usefixtures("no_report")
def test_a_study_cuts_what_costs_more_than_label_only(tmp_path: Path, capsys: Any) -> None:
    """Noise of a large budget on digits has more distortion than label-only and protects no better."""
    arguments = "--executor local --trials 3 --seeds 1 --victim-steps 60 --decoder-steps 20 --name s"
    arguments += " --attackers ridge passive --defenses noise tail-noise --no-learning-curves"
    assert pareto.main([*arguments.split(), "--storage", str(tmp_path)]) == 0
    episodes = pd.read_parquet(tmp_path / "s" / "episodes")
    assert set(episodes["status"]) <= {"ok", "cut"}
    assert not (episodes.loc[episodes["defense"].isin(["none", "label-only"]), "status"] == "cut").any()
