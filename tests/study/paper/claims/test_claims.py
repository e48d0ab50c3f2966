"""Every claim can stand, be refuted, be left open and lack records; and its entry is in order."""

from __future__ import annotations

import re

import pytest

from study.paper.claims.claims import CLAIMS, Claim
from study.paper.claims.decide import decide
from study.paper.claims.evidence import Evidence
from study.paper.claims.rules import Always, Difference
from tests.study.paper.claims.made_up import JITTER, SEEDS, evidence, rows_for


def effects(claim: Claim, verdict: str) -> list[float]:
    """By seed: by how much the measured quantity is off the threshold."""
    rule = claim.rule
    sign = -1.0 if getattr(rule, "sign", "above") == "below" else 1.0
    small = abs(getattr(rule, "threshold", 0)) / 2 or 0.1
    if isinstance(rule, Always):
        return [0.0] * SEEDS if verdict == "stands" else [0.0] * (SEEDS - 1) + [-1.0]
    if isinstance(rule, Difference) and rule.sign == "within":
        off = {"stands": 0.0, "refuted": 4 * rule.threshold}
        if verdict in off:
            return [off[verdict] + j for j in JITTER]
        return [4 * rule.threshold * s for s in (1, -1, 0, 1, -1)]
    if verdict == "not shown":
        return [small * s for s in (1, -1, 0.1, -0.9, 0.8)]
    towards = sign if verdict == "stands" else -sign
    return [towards * small + j for j in JITTER]


def records(claim: Claim, verdict: str) -> Evidence:
    return evidence(rows_for(claim.rule, effects(claim, verdict)), auxiliary=claim.auxiliary or "same")


VERDICTS = [
    pytest.param(claim, verdict, id=f"{claim.id}-{verdict}")
    for claim in CLAIMS
    for verdict in ("stands", "refuted", "not shown", "no record")
    # A claim of each single record is counted: it stands or is refuted.
    if verdict != "not shown" or not isinstance(claim.rule, Always)
]


@pytest.mark.parametrize(("claim", "verdict"), VERDICTS)
def test_every_claim_can_get_every_verdict(claim: Claim, verdict: str) -> None:
    studies = [] if verdict == "no record" else [records(claim, verdict)]
    (found,) = decide(studies, [claim])
    assert found.verdict == verdict
    assert (found.p_holm is None) == (isinstance(claim.rule, Always) or verdict == "no record")


@pytest.mark.parametrize("claim", [c for c in CLAIMS if c.auxiliary], ids=lambda c: c.id)
def test_studies_of_the_other_classes_do_not_count(claim: Claim) -> None:
    other = {"same": "disjoint", "disjoint": "same"}[claim.auxiliary or ""]
    study = evidence(rows_for(claim.rule, effects(claim, "stands")), auxiliary=other)
    assert claim.readings([study]) == []


def test_ids_and_words() -> None:
    assert len({c.id for c in CLAIMS}) == len(CLAIMS)
    for claim in CLAIMS:
        assert re.fullmatch(r"[PFR]\d\d", claim.id)
        assert claim.source
        assert not claim.text.endswith(".")
        assert "object at" not in claim.rule_text


def test_the_rule_says_its_threshold_and_its_settings() -> None:
    texts = {c.id: c.rule_text for c in CLAIMS}
    assert texts["F02"] == (
        "all readings, attacker's images of same classes: excess leakage of tail-noise (budget 0.0095 to "
        "0.0105) is below 0.02 on private train and on private test images"
    )
    assert texts["F06"].startswith("some readings: certified excess leakage")
    assert "of equal distortion" in texts["F09"]
    assert "within +-0.05 relative to it" in texts["P08"]


def test_the_same_scenes_and_setting_in_two_studies_count_once() -> None:
    claim = next(c for c in CLAIMS if c.id == "F02")
    rows = rows_for(claim.rule, effects(claim, "stands"))
    one, again = evidence(rows, "one"), evidence(rows, "again")
    larger = evidence(rows, "larger", **{"scene.limit": 500})
    assert len(claim.readings([one, again])) == len(claim.readings([one])) == 2  # train and test
    assert len(claim.readings([one, larger])) == 4
