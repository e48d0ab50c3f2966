"""Which columns of the records tables, figures and the page need: most of what a record measures they do not
show."""

from __future__ import annotations

from study.analysis.worst_case import NEEDED
from study.records.reading.episodes import judged

SHOWN = (*NEEDED, "study", "n_classes", "split", "error", "excess_leakage", "device", "versions")


def shown(name: str) -> bool:
    """Whether a column is read for a report."""
    return name in SHOWN or judged(name) or name.startswith(("check.", "error_percentile"))
