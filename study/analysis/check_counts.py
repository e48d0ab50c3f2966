"""How often a validity check was raised in a study's records."""

from __future__ import annotations

import pandas as pd


def check_counts(episodes: pd.DataFrame, column: str) -> tuple[int, int, int, int]:
    """Count settings that raised a check and those it applied to, then the same of records.

    Args:
        column: the check's column, ``check.<name>``.
    """
    if column not in episodes:
        return 0, 0, 0, 0
    applies = episodes.loc[episodes[column].notna(), ["trial", column]]  # a study has hundreds of columns
    raised = applies[applies[column].astype(bool)]
    return raised["trial"].nunique(), applies["trial"].nunique(), len(raised), len(applies)
