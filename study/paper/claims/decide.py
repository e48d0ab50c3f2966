"""Decides all claims by the records of some studies, as one family of tests."""

from __future__ import annotations

from collections.abc import Sequence
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
        p_holm: the claim's two-sided p-value, adjusted by Holm (1979) for all claims that were tested; None
            for a claim of each single record, and without a record.
        verdict: by the adjusted p-value. On each data set alone, without adjustment: :attr:`by_data`.
    """

    claim: Claim
    readings: tuple[Reading, ...]
    found: Together
    p_holm: float | None
    verdict: Verdict

    @property
    def by_data(self) -> dict[str, Verdict]:
        """Data set -> what its readings say, if they were the only ones."""
        names = sorted({r.data for r in self.readings})
        parts = {name: [r for r in self.readings if r.data == name] for name in names}
        return {name: together(part, every=self.claim.every).alone for name, part in parts.items()}


def decide(studies: Sequence[Evidence], claims: Sequence[Claim] = CLAIMS) -> list[Decision]:
    """The verdict on each claim, in their order."""
    readings = [tuple(claim.readings(studies)) for claim in claims]
    found = [together(some, every=claim.every) for claim, some in zip(claims, readings, strict=True)]
    adjusted = holm(pd.Series([one.p for one in found], dtype="Float64"))
    out = []
    for claim, some, one, p in zip(claims, readings, found, adjusted, strict=True):
        tested = not pd.isna(p)
        verdict = decided(float(p), one.holds) if tested else one.alone
        out.append(Decision(claim, some, one, float(p) if tested else None, verdict))
    return out
