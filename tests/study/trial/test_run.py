"""What comes of a trial: columns across its records, and what the search is told, against slow loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mipoison.metrics import CHECKS
from study.records.constraints import Constraints
from study.trial.run import outcome_of, outcomes_of, relate_to_anchors
from tests.study.trial.helpers import SEEDS, Record

ATTACKS = ("passive", "raw", "knn")
THREE_SEEDS = (0, 1, 2)


def trial(rng: np.random.Generator, name: str) -> list[dict[str, Any]]:
    """A trial's records: distortion and accuracy are a seed's, the attack's success differs."""
    rows = []
    for seed in THREE_SEEDS:
        distortion, accuracy, drop = rng.random(), 0.9 + 0.1 * rng.random(), 0.02 * rng.random()
        rows += [
            {
                "trial": name, "attempt": 0, "episode_id": f"{name}-{seed}-{attack}", "seed": seed,
                "defense": "noise", "attack": attack, "status": "ok", "confidence_distortion": distortion,
                "model_accuracy": accuracy, "protected_accuracy": accuracy - drop,
                "mean_image_error": 0.1, "attack_accuracy": rng.random(),
                "reconstruction_error": rng.random(),
            }
            for attack in ATTACKS
        ]  # fmt: skip
    return rows


def slowly(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The objectives of a trial without a failure."""

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    first = [r for r in rows if r["attack"] == ATTACKS[0]]
    by_attack = [[r for r in rows if r["attack"] == attack] for attack in ATTACKS]
    return {
        "confidence_distortion": mean([r["confidence_distortion"] for r in first]),
        "worst_attack_accuracy": max(mean([r["attack_accuracy"] for r in one]) for one in by_attack),
        "worst_reconstruction_error": min(
            mean([r["reconstruction_error"] for r in one]) for one in by_attack
        ),
        "accuracy_drop": mean([r["model_accuracy"] - r["protected_accuracy"] for r in first]),
    }


def test_many_at_once_are_told_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    trials = {f"t{i}": trial(rng, f"t{i}") for i in range(6)}
    gone = {"status": "failed", "attack_accuracy": None, "reconstruction_error": None}
    trials["t1"][4] |= gone  # one attacker on one seed
    for row in trials["t2"]:
        if row["attack"] == "raw":
            row |= gone  # an attacker on every seed
    for row in trials["t3"]:
        if row["attack"] == "knn":
            row |= gone | {"status": "cut"}
    for row in trials["t4"]:
        row |= gone | {"confidence_distortion": None, "protected_accuracy": None}
    together = outcomes_of(trials, Constraints())
    assert list(together) == list(trials)
    for name, rows in trials.items():
        assert together[name] == outcome_of(rows, Constraints()), name
    for name in ("t0", "t5"):
        expected = slowly(trials[name])
        assert {k: together[name][k] for k in expected} == pytest.approx(expected, rel=1e-12)
    shared = slowly([r for r in trials["t1"] if r["seed"] != trials["t1"][4]["seed"]])
    assert {k: together["t1"][k] for k in shared} == pytest.approx(shared, rel=1e-12)
    for name in ("t2", "t4"):  # the strongest attacker may be the one that says nothing
        assert together[name]["worst_attack_accuracy"] is None
        assert together[name]["worst_reconstruction_error"] is None
    assert together["t3"]["cut"] == 3
    assert together["t3"]["failed"] == 0
    assert together["t4"]["failed"] == 9


def test_of_nothing_nothing() -> None:
    assert outcomes_of({}, Constraints()) == {}


# ---------------------------------------------------------------- columns across records


def made_up(
    defense: str, attack: str, seed: int, error: float | None, accuracy: float | None = 0.5, **more: Any
) -> Record:
    status = (
        {"status": "ok", "error": None}
        if error is not None
        else {"status": "failed", "error": "RuntimeError: x"}
    )
    return (
        {
            "episode_id": f"{defense}-{attack}-{seed}",
            "dataset": "digits",
            "auxiliary": "same",
            "split": f"split{seed}",
            "victim": f"victim{seed}",
            "seed": seed,
            "defense": defense,
            "attack": attack,
            "reconstruction_error": error,
            "attack_accuracy": accuracy,
            "reconstruction_skill": None if error is None else 1 - error / 0.08,
            "label_agreement": 1.0,
            "attack_set_label_agreement": 1.0,
            "confidence_distortion": 0.01,
            "attack_set_distortion": 0.01,
            "repeat_query_distance": 0.0,
            "model_accuracy": 0.95,
            "protected_accuracy": 0.94,
            "mean_image_error": 0.08,
            "n_classes": 5,
        }
        | status
        | more
    )


# Label-only: passive is the worse one by its mean (0.050 against 0.052), though not on seed 1.
FLOOR = [
    made_up("label-only", "passive", 0, 0.040, 0.6), made_up("label-only", "passive", 1, 0.060, 0.8),
    made_up("label-only", "raw", 0, 0.050, 0.1), made_up("label-only", "raw", 1, 0.054, 0.2),
]  # fmt: skip

BARE = [made_up("none", a, s, 0.030 + 0.001 * s, confidence_distortion=0.0, attack_set_distortion=0.0)
        for a in ("passive", "raw") for s in SEEDS]  # fmt: skip


def test_excess_is_over_the_floors_own_worst_attacker() -> None:
    records = [made_up("noise", "passive", 0, 0.030, 0.7), made_up("noise", "raw", 1, 0.066, 0.7)]
    first, second = relate_to_anchors(records, [*FLOOR, *BARE])
    assert first["excess_leakage"] == pytest.approx(1 - 0.030 / 0.040)
    assert first["excess_attack_accuracy"] == pytest.approx(0.7 - 0.6)
    assert second["excess_leakage"] == pytest.approx(1 - 0.066 / 0.060)
    assert second["excess_attack_accuracy"] == pytest.approx(0.7 - 0.8)
    assert "excess_leakage" not in records[0]  # the given ones are left alone
    floor = relate_to_anchors(FLOOR, [*FLOOR, *BARE])
    assert [r["excess_leakage"] for r in floor[:2]] == [0.0, 0.0]
    assert floor[2]["excess_leakage"] == pytest.approx(1 - 0.050 / 0.040)


def test_a_floor_attacker_that_failed_on_a_seed_is_compared_on_the_others() -> None:
    """Over seed 0 alone, which both have, raw is the worse one; it gives the floor of both seeds."""
    anchors = [
        made_up("label-only", "passive", 0, 0.055),
        made_up("label-only", "passive", 1, None, None),
        *FLOOR[2:],
    ]
    rows = relate_to_anchors([made_up("noise", "raw", s, 0.04) for s in SEEDS], anchors)
    assert [r["excess_leakage"] for r in rows] == pytest.approx([1 - 0.04 / 0.050, 1 - 0.04 / 0.054])


def test_without_a_floor_nothing_is_claimed() -> None:
    failed = [r | {"status": "failed", "reconstruction_error": None, "attack_accuracy": None} for r in FLOOR]
    for anchors in ([], BARE, [*failed, *BARE]):
        (row,) = relate_to_anchors([made_up("noise", "passive", 0, 0.04)], anchors)
        assert row.get("excess_leakage") is None
        assert row["check.below_label_only"] is None


def test_checks_are_filled() -> None:
    records = [
        made_up("noise", "passive", 0, 0.030),
        made_up(
            "noise", "raw", 0, 0.090, repeat_query_distance=0.1
        ),  # worse than the mean image, and than passive
        made_up("noise", "passive", 1, None, None),
    ]
    fine, bad, failed = relate_to_anchors(records, [*FLOOR, *BARE])
    for row in (fine, bad, failed):
        assert {k for k in row if k.startswith("check.")} == {f"check.{name}" for name in CHECKS}
    assert not any(v for k, v in fine.items() if k.startswith("check."))
    assert bad["check.no_better_than_mean_image"] is True
    assert bad["check.adaptive_weaker_than_passive"] is True
    assert bad["check.repeated_queries_differ"] is True
    assert bad["check.below_label_only"] is False  # the suite's passive attacker gets below the floor
    assert {v for k, v in failed.items() if k.startswith("check.")} == {None}
    assert "excess_leakage" not in failed

    (under_trained,) = relate_to_anchors([made_up("noise", "passive", 0, 0.043)], [*FLOOR, *BARE])
    assert under_trained["check.below_label_only"] is True
    same = dict(confidence_distortion=0.0, attack_set_distortion=0.0)
    zero = relate_to_anchors(
        [made_up("noise", "passive", 0, 0.030, **same), made_up("noise", "raw", 0, 0.031, **same)],
        [*FLOOR, *BARE],
    )
    assert [r["check.zero_budget_differs"] for r in zero] == [False, True]


# ---------------------------------------------------------------- what the search is told


def test_the_outcome_is_the_worst_case_over_the_suite() -> None:
    records = [
        made_up("noise", "passive", 0, 0.04, 0.9, confidence_distortion=0.1),
        made_up("noise", "passive", 1, 0.06, 0.7, confidence_distortion=0.3),
        made_up("noise", "raw", 0, 0.03, 0.6, confidence_distortion=0.1),
        made_up("noise", "raw", 1, 0.05, 0.8, confidence_distortion=0.3),
    ]
    outcome = outcome_of(records, Constraints())
    assert outcome == pytest.approx(
        {
            "confidence_distortion": 0.2,
            "worst_attack_accuracy": 0.8,  # passive, by the mean over the seeds
            "worst_reconstruction_error": 0.04,  # raw
            "accuracy_drop": 0.01,
            # These records have none of the columns, and no certificate.
            "tail_rank_correlation": None,
            "log_loss": None,
            "brier_score": None,
            "suite_excess_worst": None,
            "worst_identification_auc": None,
            "certified_excess_worst": None,
            "episodes": 4,
            "failed": 0,
            "cut": 0,
            "screened": 0,
        }
    )


def test_an_outcome_that_cannot_be_told_is_none() -> None:
    failed = [made_up("noise", a, s, None, None) for a in ("passive", "raw") for s in SEEDS]
    gone = dict.fromkeys(("confidence_distortion", "model_accuracy", "protected_accuracy"))
    outcome = outcome_of([r | gone for r in failed], Constraints())
    assert outcome["failed"] == outcome["episodes"] == 4
    assert {
        outcome[k]
        for k in (
            "confidence_distortion",
            "worst_attack_accuracy",
            "worst_reconstruction_error",
            "accuracy_drop",
        )
    } == {None}


def test_an_attacker_that_failed_on_every_seed_is_not_left_out() -> None:
    """Without its strongest attacker a setting would look protected, and the search would be told so."""
    failed = [made_up("noise", "raw", s, None, None) for s in SEEDS]
    some = outcome_of([made_up("noise", "passive", s, 0.04) for s in SEEDS] + failed, Constraints())
    assert some["failed"] == 2
    assert some["worst_attack_accuracy"] is None
