"""Numbers of one setting: worst cases over train and test, what failed and what an older record lacks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from study.analysis.verdicts import verdict_table
from study.records.constraints import Constraints
from study.records.status import PRUNED
from study.trial.measures import MEASURED, measures
from study.trial.run import outcome_of

SEEDS = (0, 1, 2)
ATTACKS = ("passive", "raw", "knn")
SHARED = ("tail_rank_correlation", "log_loss", "brier_score", "certified_excess", "certified_excess_test")


def rows_of(rng: np.random.Generator, trial: str, defense: str = "noise") -> list[dict[str, Any]]:
    rows = []
    for seed in SEEDS:
        shared = dict(zip(SHARED, rng.random(len(SHARED)), strict=True))
        for attack in ATTACKS:
            own = {name: 0.1 + rng.random() for name in MEASURED if name not in SHARED}
            rows.append(
                {"trial": trial, "defense": defense, "attack": attack, "seed": seed, "status": "ok"}
                | {"confidence_distortion": 0.1, "attack_accuracy": 1.0}
                | shared
                | own
            )
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_the_excess_is_that_of_the_verdicts(seed: int) -> None:
    """Train or test, with a failed attacker on one seed and one that label-only lacks on another."""
    rng = np.random.default_rng(seed)
    floor, rows = rows_of(rng, "label-only", "label-only"), rows_of(rng, "t")
    for row in rows:  # so that the excess is positive
        row["reconstruction_error"] *= 0.5
        row["reconstruction_error_test"] *= 0.5
    if seed % 2:
        rows[0]["status"] = "failed"
    if seed > 1:
        floor[5]["status"] = "failed"
    table = verdict_table(pd.DataFrame([*floor, *rows])).set_index("trial")
    found = measures(rows, floor)["suite_excess_worst"]
    assert found == pytest.approx(table["suite_excess_worst"]["t"], rel=1e-12)
    assert found is not None
    assert found > 0


def test_bounded_faces_of_utility_are_means_over_all_seeds() -> None:
    """Also over one on which an attacker failed; unknown on one seed is unknown."""
    rows = rows_of(np.random.default_rng(0), "t")
    for row in rows:
        row |= {"ece": 0.1 + 0.1 * row["seed"], "clean_ece": 0.05}
    rows[0]["status"] = "failed"
    seeds = sorted({r["seed"] for r in rows})
    found = measures(rows, [], ["ece_increase", "top5_agreement"])
    assert found["ece_increase"] == pytest.approx(np.mean([0.05 + 0.1 * seed for seed in seeds]))
    assert found["top5_agreement"] is None
    for row in rows:
        row["ece"] = None if row["seed"] == seeds[0] else row["ece"]
    assert measures(rows, [], ["ece_increase"])["ece_increase"] is None


def test_identification_is_the_strongest_attackers_on_the_worse_pool() -> None:
    rows = rows_of(np.random.default_rng(0), "t")
    for row in rows:
        row["identification_auc"], row["identification_auc_test"] = 0.5, 0.6
    for row, auc in zip([r for r in rows if r["attack"] == "raw"], (0.9, 0.7, 0.8), strict=True):
        row["identification_auc"] = auc
    assert measures(rows, [])["worst_identification_auc"] == pytest.approx(0.8)
    next(r for r in rows if r["seed"] == 0 and r["attack"] == "knn")["status"] = "failed"
    assert measures(rows, [])["worst_identification_auc"] == pytest.approx(0.75)  # seed 0 does not count
    for row in rows:
        row["identification_auc_test"] = 0.95
    assert measures(rows, [])["worst_identification_auc"] == pytest.approx(0.95)


def test_an_attacker_that_a_cut_trial_did_not_run_is_not_asked_for() -> None:
    rows = rows_of(np.random.default_rng(0), "t")
    whole = measures([r for r in rows if r["attack"] != "knn"], [])
    cut = [r | {"status": PRUNED} if r["attack"] == "knn" else r for r in rows]
    assert measures(cut, []) == whole
    assert whole["worst_identification_auc"] is not None


def test_older_records_have_no_values() -> None:
    bare = ("trial", "defense", "attack", "seed", "status", "reconstruction_error", "attack_accuracy")
    rows = [{name: r[name] for name in bare} for r in rows_of(np.random.default_rng(0), "t")]
    assert set(measures(rows, []).values()) == {None}
    found = measures(rows, [r | {"reconstruction_error": 9.0} for r in rows])
    assert {name for name, value in found.items() if value is not None} == {"suite_excess_worst"}


def test_a_failed_setting_has_no_values() -> None:
    rows = [r | {"status": "failed"} for r in rows_of(np.random.default_rng(0), "t")]
    assert set(measures(rows, rows_of(np.random.default_rng(1), "label-only")).values()) == {None}
    assert set(measures([], []).values()) == {None}


@pytest.mark.parametrize("missing", ["certified_excess", "certified_excess_test"])
def test_the_certificate_is_the_largest_and_none_without_one_on_every_seed(missing: str) -> None:
    rows = rows_of(np.random.default_rng(3), "t")
    for row in rows:
        row |= {"attempt": 0, "episode_id": f"{row['seed']}{row['attack']}"}
    largest = max(max(r["certified_excess"], r["certified_excess_test"]) for r in rows)
    assert outcome_of(rows, Constraints())["certified_excess_worst"] == pytest.approx(largest)
    for row in rows:
        if row["seed"] == 2:
            row[missing] = None
    assert outcome_of(rows, Constraints())["certified_excess_worst"] is None
