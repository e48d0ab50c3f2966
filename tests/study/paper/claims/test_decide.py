"""All claims are one family: Holm's adjustment by hand, and verdicts on each data set."""

from __future__ import annotations

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


def test_each_data_set_has_its_own_verdict() -> None:
    one = evidence(rows(x=[1.0, 1.1, 1.05]), "one", dataset="mnist")
    two = evidence(rows(x=[-1.0, -1.1, -1.05]), "two", dataset="lfw:/some/folder")
    (found,) = decide([one, two], [claim("X", "x")])
    assert found.by_data == {"lfw": "refuted", "mnist": "stands"}
    assert found.verdict == "refuted"
    (some,) = decide([one, two], [claim("X", "x", every=False)])
    assert some.verdict == "stands"
