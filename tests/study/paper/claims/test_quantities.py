"""Quantities by seed, against slow loops and numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest

from study.paper.claims.evidence import Evidence
from study.paper.claims.quantities import Certified, Column, Drop, Excess, GainOver, Strongest
from tests.study.paper.claims.made_up import evidence, row


def study(errors: dict[str, list[float]], floor: dict[str, list[float]], column: str) -> Evidence:
    rows = [
        row(trial, defense, attack, seed, **{column: value})
        for trial, defense, table in (("t", "noise", errors), ("label-only", "label-only", floor))
        for attack, values in table.items()
        for seed, value in enumerate(values)
    ]
    return evidence(rows)


@pytest.mark.parametrize("pool", ["", "_test"])
def test_excess_against_a_slow_loop(pool: str) -> None:
    """Two attackers that change places: shown is the one that is best on average."""
    rng = np.random.default_rng(0)
    errors = {a: list(0.04 + 0.002 * rng.random(4)) for a in ("ridge", "mlp", "knn")}
    floor = {a: list(0.05 + 0.002 * rng.random(4)) for a in ("ridge", "mlp", "knn")}
    found = Excess().values(study(errors, floor, "reconstruction_error" + pool), "t", pool)
    assert found is not None

    def best(table: dict[str, list[float]], left_out: int | None) -> str:
        means = {a: np.mean([v for s, v in enumerate(x) if s != left_out]) for a, x in table.items()}
        return min(means, key=lambda a: means[a])

    for s in range(4):
        all_own, all_floor = best(errors, None), best(floor, None)
        assert found.shown[s] == pytest.approx(1 - errors[all_own][s] / floor[all_floor][s])
        assert found.low[s] == pytest.approx(1 - errors[best(errors, s)][s] / floor[all_floor][s])
        assert found.high[s] == pytest.approx(1 - errors[all_own][s] / floor[best(floor, s)][s])
    assert not found.partial
    assert found.of == "knn,mlp,ridge"


def test_a_choice_among_noise_overstates_a_leak_and_the_left_out_seed_does_not() -> None:
    """Thirty attackers without any gain: chosen on the scored seeds they seem to gain, else they do not."""
    rng = np.random.default_rng(0)
    low, high = [], []
    for _ in range(40):
        errors = {f"a{i}": list(0.05 * (1 + 0.02 * rng.normal(size=3))) for i in range(30)}
        found = Excess().values(study(errors, {"a0": [0.05] * 3}, "reconstruction_error"), "t", "")
        assert found is not None
        low.append(found.low.mean())
        high.append(found.high.mean())
    assert abs(np.mean(low)) < 0.005
    assert np.mean(high) > 0.01


def test_attackers_that_fail_show_no_protection() -> None:
    worse = Excess().values(study({"a": [0.06] * 3}, {"a": [0.05] * 3}, "reconstruction_error"), "t", "")
    assert worse is not None
    assert worse.partial
    lacking = study({"a": [0.04] * 3}, {"a": [0.05] * 3, "b": [0.05] * 3}, "reconstruction_error")
    found = Excess().values(lacking, "t", "")
    assert found is not None
    assert found.partial


def test_nothing_without_label_only_or_without_the_column() -> None:
    some = evidence([row("t", "noise", "a", s, reconstruction_error=0.04) for s in range(3)])
    assert Excess().values(some, "t", "") is None
    assert Excess().values(some, "t", "_test") is None
    assert Column("kl").values(some, "t", "") is None
    assert Certified().values(some, "t", "") is None
    assert Drop().values(some, "t", "") is None


def test_columns_of_an_attacker_and_of_all() -> None:
    some = evidence([row("t", "noise", a, s, x=v + s) for a, v in (("a", 0.0), ("b", 1.0)) for s in (0, 1)])
    one, mean = Column("x", "b").values(some, "t", ""), Column("x").values(some, "t", "")
    assert one is not None
    assert mean is not None
    assert one.shown.tolist() == [1.0, 2.0]
    assert mean.shown.tolist() == [0.5, 1.5]
    assert Column("x", "c").values(some, "t", "") is None


def test_the_drop_is_per_seed() -> None:
    rows = [row("t", "noise", "a", s, model_accuracy=0.9, protected_accuracy=0.9 - 0.1 * s) for s in (0, 1)]
    found = Drop().values(evidence(rows), "t", "")
    assert found is not None
    assert found.shown.tolist() == pytest.approx([0.0, 0.1])


def test_the_strongest_is_the_largest_mean_less_label_onlys() -> None:
    some = study({"a": [0.9, 0.5], "b": [0.6, 0.7]}, {"a": [0.5, 0.6]}, "attack_accuracy")
    plain, less = (Strongest("attack_accuracy", above_label=x).values(some, "t", "") for x in (False, True))
    assert plain is not None
    assert less is not None
    assert plain.shown.tolist() == [0.9, 0.5]  # a: 0.7 on average
    assert less.shown.tolist() == pytest.approx([0.4, -0.1])
    assert plain.low.tolist() == [0.6, 0.5]  # by seed 1 alone b is better, by seed 0 alone a
    assert (plain.low <= plain.high).all()


def test_the_gain_over_an_attacker_is_a_share_of_its_error() -> None:
    some = study({"class-mean": [0.05, 0.05], "ridge": [0.04, 0.04]}, {}, "reconstruction_error")
    found = GainOver("class-mean").values(some, "t", "")
    assert found is not None
    assert found.shown.tolist() == pytest.approx([0.2, 0.2])
    assert GainOver("knn").values(some, "t", "") is None


def test_the_certificate_is_the_larger_of_train_and_test() -> None:
    rows = [
        row("t", "rounding", "a", s, certified_excess=0.01 * s, certified_excess_test=0.015) for s in (0, 2)
    ]
    found = Certified().values(evidence(rows), "t", "")
    assert found is not None
    assert found.shown.tolist() == [0.015, 0.02]
