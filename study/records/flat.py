"""A setting out of the flat columns of its records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from mipoison.defenses import DEFENSES


def knobs_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A setting's knobs, from a row with ``defense`` and ``defense.<knob>``; of missing ones, those that are
    younger than the record are as they were then (``Config.BEFORE``), and the others are left out."""
    config = DEFENSES[str(row["defense"])]
    names, out = config.field_kinds(), dict[str, Any](config.BEFORE)
    for name, (kind, _) in names.items():
        value = row.get(f"defense.{name}")
        if value is not None and not pd.isna(value):
            out[name] = kind(value)
    return out
