"""Which checks a setting's records raised: those that doubt its verdict, and those that void a number."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from study.analysis.check_counts import check_counts
from study.analysis.verdicts import DOUBTS

VOIDS = {"unfit_judge": "attack_accuracy"}
"""Check that doubts no verdict -> the number that says nothing where it is raised."""


def doubts(rows: pd.DataFrame) -> list[str]:
    """Checks that say that more may be in the answers than these attackers read, and that were raised.

    Args:
        rows: of one setting.
    """
    told = rows.reindex(columns=list(DOUBTS)).astype("boolean").fillna(False).any()
    return [name.removeprefix("check.") for name in DOUBTS if told[name]]


def not_to_be_read(rows: pd.DataFrame) -> list[str]:
    """The numbers that a raised check of VOIDS leaves without a meaning."""
    return [number for check, number in VOIDS.items() if check_counts(rows, f"check.{check}")[2]]


def raised_text(rows: pd.DataFrame) -> str | None:
    """What the answer says of the raised checks; None if there is nothing to say."""
    names = doubts(rows)
    parts = [f"raised in its records: {', '.join(names)}; report.md says what they mean"] if names else []
    for check, number in VOIDS.items():
        _, _, raised, applied = check_counts(rows, f"check.{check}")
        if raised:
            parts.append(f"{check} in {raised} of {applied} records: do not read {in_words([number])}")
    return "; ".join(parts) or None


def in_words(numbers: Sequence[str]) -> str:
    return ", ".join(number.replace("_", " ") for number in numbers)
