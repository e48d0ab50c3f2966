"""Checks count configurations beside records."""

from __future__ import annotations

import pandas as pd

from study.reports.tables import check_counts
from tests.study.analysis.helpers import record


def test_checks_count_settings_beside_records():
    """A check that is measured once per setting is repeated in the record of every seed and attacker."""
    rows = [record(t, "lpa", k, s) | {"check.repeated_queries_differ": t == "a"}
            for t in "abc" for k in ("raw", "passive") for s in range(3)]  # fmt: skip
    frame = pd.concat([pd.DataFrame(rows[:4]), pd.DataFrame(rows[4:])])  # an index that repeats
    told = frame["check.repeated_queries_differ"].astype("boolean")
    frame["check.repeated_queries_differ"] = told.mask(frame["trial"] == "c")  # does not apply there
    assert check_counts(frame, "check.repeated_queries_differ") == (1, 2, 6, 12)
    assert check_counts(frame, "check.unheard_of") == (0, 0, 0, 0)
