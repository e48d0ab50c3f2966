"""Values of the records' column ``status`` besides ``ok`` and ``failed``, and whose episodes did not run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

PRUNED = "cut"
"""The episode was not run, because label-only already dominated its setting, or because the setting was only
screened (``screened`` is true then; the metrics of a running study do not count these)."""


def is_screened(episodes: pd.DataFrame) -> pd.Series:
    """Whether each episode is of a setting that was only screened; False in records without the column."""
    found = episodes.reindex(columns=["screened"])["screened"]
    return found.astype("boolean").fillna(False).astype(bool)
