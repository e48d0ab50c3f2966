"""All claims are one family: Holm's adjustment by hand, and verdicts on each data set."""

from __future__ import annotations

import dataclasses

import pytest

from study.paper.claims.claims import Claim
from study.paper.claims.decide import decide
from study.paper.claims.evidence import setting
from study.paper.claims.quantities import Column
from study.paper.claims.rules import Always, Mean
from tests.study.paper.claims.made_up import evidence, row


def claim(name: str, column: str, **more: object) -> Claim:
    return Claim(name, name, "us", Mean(Column(column), setting("noise"), "above", 0), **more)  # type: ignore[arg-type]


def rows(**columns: list[float]) -> list[dict[str, object]]:
    return [
        row("t", "noise", "a", s, **{name: values[s] for name, values in columns.items()}) for s in range(3)
    ]


def test_p_values_are_adjusted_for_the_claims_that_were_tested() -> None:
    study = evidence(rows(x=[1.0, 1.1, 1.05], y=[1.0, 1.6, 1.3], z=[1.0, -1.0, 0.2]))
    exact = Claim("A", "a", "us", Always("x", least=0))
    found = decide([study], [claim("X", "x"), claim("Y", "y"), claim("Z", "z"), claim("W", "w"), exact])
    p = [d.found.p for d in found]
    assert p[0] is not None
    assert p[1] is not None
    assert p[0] < p[1] < 0.05 / 2 < 0.5
    assert found[0].p_holm == pytest.approx(3 * p[0])  # three of the five were tested
    assert found[1].p_holm == pytest.approx(2 * p[1])
    assert [d.verdict for d in found] == ["stands", "stands", "not shown", "no record", "stands"]
    assert [d.p_holm is None for d in found] == [False, False, False, True, True]


def test_what_stands_alone_may_not_stand_in_a_family() -> None:
    study = evidence(rows(y=[1.0, 1.7, 1.3], **{f"z{i}": [1.0, -1.0, 0.2] for i in range(9)}))
    family = [claim("Y", "y"), *(claim(f"Z{i}", f"z{i}") for i in range(9))]
    found = decide([study], family)[0]
    assert (found.found.alone, found.verdict) == ("stands", "not shown")
    assert decide([study], family[:1])[0].verdict == "stands"


def test_claims_of_too_few_seeds_are_not_of_the_family() -> None:
    few = [r | {"y": None if r["seed"] == 2 else 1.0} for r in rows(x=[1.0, 1.1, 1.05])]
    found = decide([evidence(few)], [claim("X", "x"), claim("Y", "y")])
    assert found[0].p_holm == found[0].found.p
    assert (found[1].p_holm, found[1].verdict, found[1].found.alone) == (None, "not shown", "not shown")


def test_a_claim_of_all_does_not_stand_on_what_screening_left() -> None:
    """Of two settings one was screened, so that the attacker that the claim is about did not run."""
    of = Claim("X", "x", "us", Mean(Column("x", "b"), setting("noise"), "above", 0))
    first = [r | {"attack": "b"} for r in rows(x=[1.0, 1.1, 1.05])]
    second = [r | {"trial": "u", "defense.budget": 0.3} for r in first]
    cut = [r | {"status": "cut", "x": None} for r in second] + [r | {"attack": "a"} for r in second]
    (found,) = decide([evidence(first + cut, "s")], [of])
    assert (found.verdict, found.left_out) == ("not shown", {"digits": 1})
    assert found.by_data == {"digits": "not shown"}
    (some,) = decide([evidence(first + cut, "s")], [dataclasses.replace(of, every=False)])
    assert some.verdict == "stands"
    whole = evidence(second, "another study of the scene has it")
    (both,) = decide([evidence(first + cut, "s"), whole], [of])
    assert (both.verdict, both.left_out, len(both.readings)) == ("stands", {}, 2)


def test_each_data_set_has_its_own_verdict() -> None:
    one = evidence(rows(x=[1.0, 1.1, 1.05]), "one", dataset="mnist")
    two = evidence(rows(x=[-1.0, -1.1, -1.05]), "two", dataset="lfw:/some/folder")
    (found,) = decide([one, two], [claim("X", "x")])
    assert found.by_data == {"lfw": "refuted", "mnist": "stands"}
    assert found.verdict == "refuted"
    (some,) = decide([one, two], [claim("X", "x", every=False)])
    assert some.verdict == "stands"
