"""Rules: what is compared with what. That each gives every verdict is in test_claims.py."""

from __future__ import annotations

import pytest

from study.paper.claims.evidence import Evidence, setting
from study.paper.claims.quantities import Column, Excess
from study.paper.claims.readings import distinct
from study.paper.claims.rules import Always, Difference, Mean
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


def test_both_pools_together_are_one_reading_of_a_scene() -> None:
    """Two studies of one scene: in one the train images leak, in the other one the test images."""
    both = Column("x", pools=("", "_test"))
    rule = Mean(both, setting("noise"), "above", 0.5, some_pool=True)
    one = [row("t", "noise", "a", s, x=1.0 + 0.01 * s, x_test=0.01 * s) for s in range(4)]
    two = [r | {"x": r["x_test"], "x_test": r["x"]} for r in one]
    assert len(distinct(rule.readings(evidence(one, "one")) + rule.readings(evidence(two, "two")))) == 1


def test_settings_with_equal_words_are_not_the_same() -> None:
    rows = one("t1", "noise", 1.0, **{"defense.budget": 0.00995})
    rows += one("t2", "noise", 2.0, **{"defense.budget": 0.009954})
    found = Mean(X, setting("noise"), "above", 1.5).readings(evidence(rows))
    assert evidence(rows).text("t1") == evidence(rows).text("t2")
    assert len(distinct(found)) == 2
    pairs = Difference(X, setting("label-only"), "above", 0, than=setting("noise"))
    assert len(distinct(pairs.readings(evidence(rows + one("l", "label-only", 0.0))))) == 2


def suites(errors: dict[tuple[str, str], float], seeds: int = 4, cut: str = "") -> Evidence:
    """Errors by (defense, attacker) beside label-only's of 0.05; the attacker b of a defense did not run."""
    rows = []
    for (defense, attack), error in {("label-only", a): 0.05 for _, a in errors}.items() | errors.items():
        for s in range(seeds):
            value = error * (1 + 1e-4 * s)
            gone = {"status": "cut"} if (defense, attack) == (cut, "b") else {"reconstruction_error": value}
            rows.append(row(defense, defense, attack, s, **gone))
    return evidence(rows)


HIDES = Difference(Excess(("",)), setting("lpa"), "below", 0, than=setting("noise"), cut=True)
WHOLE = {("lpa", "a"): 0.047, ("lpa", "b"): 0.02, ("noise", "a"): 0.04, ("noise", "b"): 0.045}


@pytest.mark.parametrize(("cut", "small", "large"), [("lpa", False, True), ("noise", True, False)])
def test_more_may_be_read_of_a_screened_setting(cut: str, small: bool, large: bool) -> None:
    """That the screened one leaks less is not shown; that it leaks more is."""
    (whole,) = HIDES.readings(suites(WHOLE | {("lpa", "b"): 0.047}))
    assert whole.p_holds < 0.01
    (less,) = HIDES.readings(suites(WHOLE | {("lpa", "b"): 0.047}, cut=cut))
    (more,) = HIDES.readings(suites(WHOLE | {("lpa", "a"): 0.03}, cut=cut))
    assert (less.p_holds < 0.01, more.p_opposite < 0.01) == (small, large)
    assert (less.p_opposite > 0.9, more.p_holds > 0.9) == (True, True)
    alike = Difference(Excess(("",)), setting("lpa"), "within", 0.9, than=setting("noise"), cut=True)
    assert alike.readings(suites(WHOLE))[0].p_holds < 0.01
    assert alike.readings(suites(WHOLE, cut=cut))[0].p_holds == 1


def test_a_screened_baseline_counts_the_other_way_round() -> None:
    rule = Difference(
        Excess(("",)), setting("lpa"), "above", 0.1, than=setting("noise"), twice=setting("mid")
    )
    more = {("mid", "a"): 0.05, ("mid", "b"): 0.05}
    assert rule.readings(suites(WHOLE | more))[0].p_holds < 0.01
    assert rule.readings(suites(WHOLE | more, cut="mid"))[0].p_holds == 1


def test_a_weak_suite_with_more_seeds_displaces_no_strong_one() -> None:
    strong = suites(WHOLE)
    weak = suites({k: v for k, v in WHOLE.items() if k[1] == "a"}, seeds=6)
    found = distinct([*HIDES.readings(weak), *HIDES.readings(strong)])
    assert [r.p_holds < 0.01 for r in found] == [True, False]


def test_settings_without_the_knob_have_no_equal_knob() -> None:
    rows = one("l", "lpa", 1.0) + one("n", "noise", 0.0)
    rule = Difference(X, setting("lpa"), "above", 0, than=setting("noise"), match="budget")
    assert rule.readings(evidence(rows)) == []


def test_settings_whose_attacker_did_not_run_are_counted() -> None:
    by_b = Column("reconstruction_error", "b")
    for rule in (Mean(by_b, setting("lpa"), "above", 0), Difference(by_b, setting("lpa"), "above", 0,
                                                                     than=setting("noise"))):  # fmt: skip
        assert rule.left_out(suites(WHOLE)) == []
        (gone,) = rule.left_out(suites(WHOLE, cut="lpa"))
        assert rule.readings(suites(WHOLE, cut="lpa")) == []
        assert gone == rule.readings(suites(WHOLE))[0].key[:-1]
    failed = suites(WHOLE, cut="lpa").records.replace({"status": {"cut": "failed"}})
    assert Mean(by_b, setting("lpa"), "above", 0).left_out(Evidence("s", failed)) == []


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


def test_every_record_counts() -> None:
    rows = [row("t", "lpa", "a", s, x=1.0) for s in range(3)] + [row("t", "lpa", "b", 0, x=0.5)]
    study = evidence(rows)
    (found,) = Always("x", setting("lpa"), least=1).readings(study)
    assert (found.mean, found.seeds, found.p_holds) == (0.25, 4, 1.0)
    other = Evidence("other", study.records[study.records["attack"] == "a"])
    more = distinct([*Always("x", setting("lpa"), least=1).readings(other), found])
    assert [r.p_holds for r in more] == [0, 1]  # one scene, but each study has records of its own
    assert Always("x", setting("noise"), least=1).readings(study) == []
    assert Always("y", least=1).readings(study) == []
    assert Always("x", least=1, known="z").readings(study) == []
