"""The page's tables count checks and failures."""

from __future__ import annotations

import pandas as pd

from mipoison.metrics import checks_table
from tests.study.reports.html.helpers import Reader


def test_checks_and_failures_are_counted(page: str, episodes: pd.DataFrame) -> None:
    rows = Reader(page).rows
    for column, raised_if, means in checks_table():
        row = next(r for r in rows if r and r[0] == column.removeprefix("check.") and len(r) == 5)
        assert (row[3], row[4]) == (raised_if, means)
        if column in episodes:
            told = episodes[column].dropna()
            assert row[2] == f"{int(told.sum())} of {len(told)}"
    failures = [r for r in rows if r and r[0] in ("failed", "cut") and len(r) == 6]
    assert [(r[0], r[3]) for r in failures] == [("failed", "1"), ("cut", "3"), ("cut", "3")]
