"""Rebuilds a setting from the flat columns of its records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mipoison.defenses import DEFENSES


def knobs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs of a setting, from a row with the columns ``defense`` and ``defense.<knob>``.

    A knob that was added after the record was written gets the value that the code had before
    (``Config.BEFORE``). Other missing knobs are left out.
    """
    config = DEFENSES[str(row["defense"])]
    names, out = config.field_kinds(), dict[str, Any](config.BEFORE)
    for name, (kind, _) in names.items():
        value = row.get(f"defense.{name}")
        if value is not None and not pd.isna(value):
            out[name] = kind(value)
    return out
