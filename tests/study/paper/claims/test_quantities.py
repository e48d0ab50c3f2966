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
        found = Excess().values(
            study(errors, {name: [0.05] * 3 for name in errors}, "reconstruction_error"), "t", ""
        )
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
    floor = {"a": [0.5, 0.6], "b": [0.55, 0.3]}  # a: 0.55 on average, by seed 0 alone b is better
    some = study({"a": [0.9, 0.5], "b": [0.6, 0.7]}, floor, "attack_accuracy")
    plain, less = (Strongest("attack_accuracy", above_label=x).values(some, "t", "") for x in (False, True))
    assert plain is not None
    assert less is not None
    assert plain.shown.tolist() == [0.9, 0.5]  # a: 0.7 on average
    assert less.shown.tolist() == pytest.approx([0.4, -0.1])
    assert plain.low.tolist() == [0.6, 0.5]  # by seed 1 alone b is better, by seed 0 alone a
    assert (plain.low <= plain.high).all()
    assert less.low.tolist() == pytest.approx([0.1, -0.1])
    assert less.high.tolist() == pytest.approx([0.4, 0.2])  # the floor of seed 1 by b, chosen on seed 0


def test_a_seed_that_label_only_lacks_is_left_out() -> None:
    some = study({"a": [0.9, 0.5, 0.7]}, {"a": [0.5, 0.6]}, "attack_accuracy")
    found = Strongest("attack_accuracy", above_label=True).values(some, "t", "")
    assert found is not None
    assert found.shown.tolist() == pytest.approx([0.4, -0.1])


def test_the_floor_is_one_attacker_and_not_the_luckiest_of_each_seed() -> None:
    """A defense with the very records of label-only has an excess of 0 on every seed."""
    rng = np.random.default_rng(0)
    table = {a: list(0.8 + 0.05 * rng.normal(size=6)) for a in "abcdefg"}
    found = Strongest("attack_accuracy", above_label=True).values(
        study(table, table, "attack_accuracy"), "t", ""
    )
    assert found is not None
    assert found.shown.tolist() == [0] * 6


@pytest.mark.parametrize("quantity", [Excess(), Strongest("reconstruction_error", above_label=True)])
def test_no_floor_of_weaker_attackers(quantity: Excess | Strongest) -> None:
    """Label-only lacks an attacker of the setting; or one of its own failed on all seeds, or on most."""
    column = "reconstruction_error"
    both = {"a": [0.05] * 4, "b": [0.04] * 4}
    assert quantity.values(study(both, {"a": [0.05] * 4}, column), "t", "") is None
    for seeds in (4, 2):
        some = study({"a": both["a"]}, both, column).records
        gone = (some["trial"] == "label-only") & (some["attack"] == "b") & (some["seed"] < seeds)
        some.loc[gone, ["status", column]] = ["failed", None]
        assert quantity.values(Evidence("s", some), "t", "") is None
    some.loc[(some["trial"] == "label-only") & (some["seed"] > 0), ["status", column]] = ["ok", 0.05]
    found = quantity.values(Evidence("s", some), "t", "")
    assert found is not None
    assert found.shown.index.tolist() == [1, 2, 3]


def test_who_sees_labels_alone_shows_nothing() -> None:
    only = {"class-mean": [0.05] * 3}
    some = study(only, only, "reconstruction_error")
    for quantity in (Excess(), GainOver("class-mean"), Strongest("reconstruction_error")):
        assert quantity.values(some, "t", "") is None


def test_the_gain_over_an_attacker_is_a_share_of_its_error() -> None:
    some = study({"class-mean": [0.05, 0.05], "ridge": [0.04, 0.04]}, {}, "reconstruction_error")
    found = GainOver("class-mean").values(some, "t", "")
    assert found is not None
    assert found.shown.tolist() == pytest.approx([0.2, 0.2])
    assert GainOver("knn").values(some, "t", "") is None


@pytest.mark.parametrize(
    "broken",
    [
        {"certified_excess": None},
        {"certified_excess_test": None},
        {"check.beats_certificate": True},
        {"check.repeated_queries_differ": True},
    ],
)
def test_one_seed_without_a_certificate_or_against_it_is_enough(broken: dict[str, object]) -> None:
    known = {"certified_excess": 0.01, "certified_excess_test": 0.01, "check.beats_certificate": False}
    rows = [row("t", "codebook", "a", s, **known) for s in range(4)]
    found = Certified().values(evidence(rows), "t", "")
    assert found is not None
    assert found.shown.tolist() == [0.01] * 4
    rows[2] |= broken
    assert Certified().values(evidence(rows), "t", "") is None


def test_the_certificate_is_the_larger_of_train_and_test() -> None:
    rows = [
        row("t", "rounding", "a", s, certified_excess=0.01 * s, certified_excess_test=0.015) for s in (0, 2)
    ]
    found = Certified().values(evidence(rows), "t", "")
    assert found is not None
    assert found.shown.tolist() == [0.015, 0.02]
