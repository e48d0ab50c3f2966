"""One rule for limits in every text: upper ones are rounded up, so that no text promises more than was shown.

It holds for what bounds a leak from above: certificates, and upper one-sided 95 % limits of excess leakage.
Values, lower limits and two-sided intervals are rounded to the nearest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

PLACES = 3
"""Decimals of a printed share."""


def rounded_up(limit: Any, places: int = PLACES) -> float:
    """An upper limit, rounded up to the decimals that are printed; noise of rounding in it does not count."""
    scale = 10**places
    return math.ceil(float(limit) * scale - 1e-6) / scale


def upper_limit(limit: Any, *, sign: str = "", missing: str = "-") -> str:
    """The text of an upper limit.

    Args:
        sign: ``+`` for one with its sign. missing: the text where there is none.
    """
    return missing if pd.isna(limit) else f"{rounded_up(limit):{sign}z.{PLACES}f}"


def with_limits(
    value: Any, low: Any, high: Any, *, between: str = " ", missing: str = "-", alone: str = ""
) -> str:
    """``0.004 [-0.001, 0.010]``: a value and its one-sided limits.

    Args:
        between: stands before the limits. missing: the text where there is no value. alone: what follows a
            value without limits.
    """
    if pd.isna(value):
        return missing
    known = not (pd.isna(low) or pd.isna(high))
    ends = f"{between}[{float(low):z.{PLACES}f}, {upper_limit(high)}]" if known else alone
    return f"{float(value):z.{PLACES}f}{ends}"


def limits_of(row: Mapping[str, Any], name: str, **how: str) -> str:
    """:func:`with_limits` of the columns ``name``, ``name_low`` and ``name_high``."""
    return with_limits(*(row[f"{name}{end}"] for end in ("", "_low", "_high")), **how)
