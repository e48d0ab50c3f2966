"""Which columns of the records the reports need, so that loading a study can skip the others."""

from __future__ import annotations

from mipoison.metrics.distinct import DISTINCT_COLUMNS
from study.analysis.utility import COLUMNS
from study.analysis.verdicts import AGREEMENT, EXACT
from study.analysis.worst_case import NEEDED
from study.records.reading.episodes import needed_to_check
from study.reports.findings import MEASURED

SHOWN = (
    *NEEDED,
    "alignment_after",
    "screened",
    "study",
    "n_classes",
    "pool_size",
    "pool_size_test",
    *DISTINCT_COLUMNS,
    "split",
    "error",
    "excess_leakage",
    "device",
    "versions",
)


def shown_in_reports(name: str) -> bool:
    """Whether a report needs a column of the records."""
    parts = (
        "check.",
        "error_percentile",
        "error_half",
        "certif",
        "reconstruction_error_test",
        "estimated_limit",
    )
    return (
        name in (*SHOWN, *MEASURED, *COLUMNS, *AGREEMENT, *EXACT)
        or needed_to_check(name)
        or name.startswith(parts)
    )
