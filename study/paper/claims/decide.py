"""Decides all claims by the records of some studies, as one family of tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from study.analysis.comparisons import holm
from study.paper.claims.claims import CLAIMS, Claim
from study.paper.claims.evidence import Evidence
from study.paper.claims.readings import Reading, Together, Verdict, decided, together


@dataclass(frozen=True)
class Decision:
    """A claim and what the records say of it.

    Attributes:
        readings: what the verdict rests on. found: those together.
        left_out: how many settings have no reading since they were only screened, by data set.
        p_holm: the claim's two-sided p-value, adjusted by Holm (1979) for all claims that were tested; None
            for a claim of each single record, without a record, and with too few seeds for a test.
        verdict: by the adjusted p-value. On each data set alone, without adjustment: :attr:`by_data`.
    """

    claim: Claim
    readings: tuple[Reading, ...]
    left_out: Mapping[str, int]
    found: Together
    p_holm: float | None
    verdict: Verdict

    @property
    def by_data(self) -> dict[str, Verdict]:
        """Data set -> what its readings say, if they were the only ones."""
        names = sorted({r.data for r in self.readings})
        parts = {name: [r for r in self.readings if r.data == name] for name in names}
        return {
            name: together(part, every=self.claim.every, left_out=name in self.left_out).alone
            for name, part in parts.items()
        }


def decide(studies: Sequence[Evidence], claims: Sequence[Claim] = CLAIMS) -> list[Decision]:
    """The verdict on each claim, in their order."""
    readings = [tuple(claim.readings(studies)) for claim in claims]
    gone = [
        Counter(claim.left_out(studies, some).values()) for claim, some in zip(claims, readings, strict=True)
    ]
    found = [
        together(some, every=claim.every, left_out=bool(none))
        for claim, some, none in zip(claims, readings, gone, strict=True)
    ]
    adjusted = holm(pd.Series([one.p for one in found], dtype="Float64"))
    out = []
    for claim, some, none, one, p in zip(claims, readings, gone, found, adjusted, strict=True):
        tested = not pd.isna(p)
        verdict = decided(float(p), one.holds) if tested else one.alone
        out.append(Decision(claim, some, none, one, float(p) if tested else None, verdict))
    return out
