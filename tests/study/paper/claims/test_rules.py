"""Rules: what is compared with what. That each gives every verdict is in test_claims.py."""

from __future__ import annotations

import pytest

from study.paper.claims.evidence import setting
from study.paper.claims.quantities import Column, Excess
from study.paper.claims.rules import Always, Difference, Mean, Trend
from tests.study.paper.claims.made_up import evidence, row

X = Column("x")


def one(trial: str, defense: str, x: float, **more: object) -> list[dict[str, object]]:
    return [row(trial, defense, "a", s, x=x + 0.001 * s, **more) for s in range(3)]


def test_each_setting_is_a_reading_and_says_where() -> None:
    study = evidence([*one("t1", "noise", 1.0, **{"defense.budget": 0.1}), *one("t2", "noise", 2.0)])
    found = Mean(X, setting("noise"), "above", 1.5).readings(study)
    assert [r.where for r in found] == ["made-up: t1 (noise budget=0.1)", "made-up: t2 (noise)"]
    assert found[0].p_opposite < 0.001 < 0.9 < found[0].p_holds
    assert found[1].p_holds < 0.001


def test_a_leak_on_one_pool_is_enough_and_its_absence_needs_both() -> None:
    rows = [row("t", "noise", "a", s, x=1.0 + 0.01 * s, x_test=0.01 * s) for s in range(3)]
    both = Column("x", pools=("", "_test"))
    (leak,) = Mean(both, setting("noise"), "above", 0.5, some_pool=True).readings(evidence(rows))
    assert leak.where.endswith("train")
    assert leak.p_holds < 0.01
    absence = Mean(both, setting("noise"), "below", 0.5).readings(evidence(rows))
    assert [r.p_holds < 0.01 for r in absence] == [False, True]


def test_differences_are_paired_by_seed() -> None:
    rows = [row("t1", "lpa", "a", s, x=10.0 * s + 1) for s in range(4)]
    rows += [row("t2", "noise", "a", s, x=10.0 * s) for s in range(1, 5)]
    (found,) = Difference(X, setting("lpa"), "above", 0.5, than=setting("noise")).readings(evidence(rows))
    assert (found.mean, found.low, found.high, found.seeds) == (1.0, 1.0, 1.0, 3)


@pytest.mark.parametrize(("how", "mean"), [("plain", 0.3), ("relative", 3.0), ("log10", 0.60206)])
def test_ways_to_compare(how: str, mean: float) -> None:
    rows = [row("t1", "lpa", "a", s, x=0.4) for s in range(3)]
    rows += [row("t2", "noise", "a", s, x=0.1) for s in range(3)]
    rule = Difference(X, setting("lpa"), "above", 0, than=setting("noise"), how=how)  # type: ignore[arg-type]
    assert rule.readings(evidence(rows))[0].mean == pytest.approx(mean, rel=1e-4)


def test_equal_knobs_and_equal_distortion() -> None:
    rows = [*one("l", "lpa", 1.0, **{"defense.budget": 0.1}, confidence_distortion=0.010)]
    for name, budget, distortion in (("n1", 0.1, 0.030), ("n2", 0.2, 0.0120), ("n3", 0.3, 0.0099)):
        rows += one(name, "noise", 0.0, **{"defense.budget": budget}, confidence_distortion=distortion)

    def partners(match: str | None) -> list[str]:
        rule = Difference(X, setting("lpa"), "above", 0, than=setting("noise"), match=match)
        return [r.where.partition(" vs ")[2] for r in rule.readings(evidence(rows))]

    assert partners("budget") == ["noise budget=0.1"]
    assert partners("distortion") == ["noise budget=0.3"]
    assert len(partners(None)) == 3
    far = [r | {"confidence_distortion": 0.1} if r["trial"] != "l" else r for r in rows]
    rule = Difference(X, setting("lpa"), "above", 0, than=setting("noise"), match="distortion")
    assert rule.readings(evidence(far)) == []


def test_what_lies_below_the_floor_is_cut() -> None:
    def errors(trial: str, defense: str, error: float) -> list[dict[str, object]]:
        return [row(trial, defense, "a", s, reconstruction_error=error) for s in range(3)]

    rows = errors("l", "lpa", 0.06) + errors("n", "noise", 0.10) + errors("label-only", "label-only", 0.05)
    rule = Difference(Excess(("",)), setting("lpa"), "above", 0, than=setting("noise"), cut=True)
    (found,) = rule.readings(evidence(rows))
    assert found.mean == 0.0
    assert (found.p_holds, found.p_opposite) == (1.0, 1.0)


def test_a_difference_of_differences() -> None:
    rows = []
    for trial, defense, gap in (("l", "lpa", 3.0), ("none", "none", 1.0)):
        rows += [row(trial, defense, "a", s, x=1.0 + gap) for s in range(3)]
        rows += [row(trial, defense, "b", s, x=1.0) for s in range(3)]
    rule = Difference(
        Column("x", "a"), setting("lpa"), "above", 0, than=setting("lpa"), other=Column("x", "b"),
        twice=setting("none"),
    )  # fmt: skip
    assert rule.readings(evidence(rows))[0].mean == 2.0
    assert rule.readings(evidence([r for r in rows if r["trial"] != "none"])) == []


def test_the_trend_is_kendalls_tau_on_each_seed() -> None:
    """Of four settings in order but for one exchanged pair: five pairs of six agree, so tau is 4/6."""
    rows = []
    for i, x in enumerate([1.0, 3.0, 2.0, 4.0]):
        rows += [row(f"t{i}", "lpa", "a", s, x=x, **{"defense.budget": 0.1 * (i + 1)}) for s in range(3)]
    (found,) = Trend(X, setting("lpa"), "budget", "above").readings(evidence(rows))
    assert found.mean == pytest.approx(4 / 6)
    few = [r for r in rows if r["trial"] != "t3"]
    assert Trend(X, setting("lpa"), "budget", "above").readings(evidence(few)) == []


def test_every_record_counts() -> None:
    rows = [row("t", "lpa", "a", s, x=1.0) for s in range(3)] + [row("t", "lpa", "b", 0, x=0.5)]
    study = evidence(rows)
    (found,) = Always("x", setting("lpa"), least=1).readings(study)
    assert (found.mean, found.seeds, found.p_holds) == (0.25, 4, 1.0)
    assert Always("x", setting("noise"), least=1).readings(study) == []
    assert Always("y", least=1).readings(study) == []
    assert Always("x", least=1, known="z").readings(study) == []
