"""Reads values back from the flat columns of records: a setting, a finite number."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from mipoison.defenses import DEFENSES

TOLERANCE = 1e-9
"""Relative difference of two values of a knob that are the same."""


def knobs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a setting, from a row with the columns ``defense`` and ``defense.<knob>``.

    A knob that was added after the record was written gets the value that the code had before
    (``Config.BEFORE``). Other missing knobs are left out.
    """
    import pandas as pd

    config = DEFENSES[str(row["defense"])]
    names, out = config.field_kinds(), dict[str, Any](config.BEFORE)
    for name, (kind, _) in names.items():
        value = row.get(f"defense.{name}")
        if value is not None and not pd.isna(value):
            out[name] = kind(value)
    return out


def same_value(value: Any, wanted: Any) -> bool:
    """Whether a knob has the wanted value; numbers with a fraction within TOLERANCE."""
    if isinstance(wanted, float) and isinstance(value, int | float):
        return abs(value - wanted) <= TOLERANCE * abs(wanted)
    return bool(value == wanted)


def finite(value: Any) -> float | None:
    """A value as a finite number; None if it is missing or not finite."""
    import pandas as pd

    if value is None or pd.isna(value):
        return None
    value = float(value)
    return value if math.isfinite(value) else None
