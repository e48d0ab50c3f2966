"""The page's tables count checks and failures."""

from __future__ import annotations

import pandas as pd

from mipoison.metrics import checks_table
from study.reports.html import sections
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


def test_nothing_of_a_section_without_content_is_shown(page: str) -> None:
    """No reconstructions are kept here, and no knob has importance: an empty section says nothing."""
    assert 'id="reconstructions"' not in page
    assert "No reconstructions" not in page


def test_settings_stand_with_their_command(page: str, episodes: pd.DataFrame) -> None:
    rows = [r for r in Reader(page).rows if len(r) == 9 and "evaluate.py" in r[8]]
    assert len(rows) == episodes["trial"].nunique()
    assert rows[0][0].startswith("undefended")


def test_limits_of_excess_are_said_to_be_one_sided() -> None:
    assert [c for c in sections.COLUMNS if c.startswith("excess")] == [
        "excess leakage\n(share)\n[one-sided 95 %]"
    ]
    note = sections.attackers_note([{"identification": None, "limit": None}], True)
    assert "those of excess leakage one-sided 95 % limits" in note
