"""The outcome of a trial, computed alone and together with others, against a slow loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from study.search.sampler import CONSTRAINT
from study.trial.run import outcome_of, outcomes_of

ATTACKS = ("passive", "raw", "knn")
SEEDS = (0, 1, 2)


def trial(rng: np.random.Generator, name: str) -> list[dict[str, Any]]:
    """A trial's records: distortion and accuracy depend on the seed only, the attack's success on both."""
    rows = []
    for seed in SEEDS:
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
        CONSTRAINT: mean([r["model_accuracy"] - r["protected_accuracy"] for r in first]),
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
    together = outcomes_of(trials, 0.02)
    assert list(together) == list(trials)
    for name, rows in trials.items():
        assert together[name] == outcome_of(rows, 0.02), name
    for name in ("t0", "t5"):
        expected = slowly(trials[name])
        assert {k: together[name][k] for k in expected} == pytest.approx(expected, rel=1e-12)
    shared = slowly([r for r in trials["t1"] if r["seed"] != trials["t1"][4]["seed"]])
    assert {k: together["t1"][k] for k in shared} == pytest.approx(shared, rel=1e-12)
    for name in ("t2", "t4"):  # the attacker that failed may be the strongest one
        assert together[name]["worst_attack_accuracy"] is None
        assert together[name]["worst_reconstruction_error"] is None
    assert together["t3"]["cut"] == 3
    assert together["t3"]["failed"] == 0
    assert together["t4"]["failed"] == 9


def test_of_nothing_nothing() -> None:
    assert outcomes_of({}, 0.02) == {}
