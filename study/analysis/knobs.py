"""The knobs of each trial, read from its records: values, pandas types and a short text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mipoison.defenses import DEFENSES
from study.analysis.worst_case import PLACE, TRIAL

if TYPE_CHECKING:
    import pandas as pd

KNOB = "defense."
"""Prefix of the knobs' columns in records and configuration tables."""


def knobs_by_trial(
    episodes: pd.DataFrame, rows: pd.DataFrame, trials: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Column -> each trial's value, None where it has none.

    Raises:
        ValueError: a trial has several values of one knob.
    """
    trial = rows[TRIAL].to_numpy()
    mixed: dict[int, str] = {}
    knobs: dict[str, NDArray[Any]] = {}
    for column in sorted(c for c in episodes.columns if c.startswith(KNOB)):
        cells = episodes[column].iloc[rows[PLACE].to_numpy()]
        there = cells.notna().to_numpy(dtype=bool)
        values, owner = cells[there].to_numpy(dtype=object), trial[there]
        first = np.full(len(trials), None, dtype=object)
        first[owner[::-1]] = values[::-1]  # of equals the first
        for place in owner[values != first[owner]]:
            mixed.setdefault(int(place), column)
        knobs[column] = first
    if mixed:
        place = min(mixed)
        values = episodes[mixed[place]].iloc[rows.loc[rows[TRIAL] == place, PLACE].to_numpy()].dropna()
        message = f"several values of {mixed[place]}: {list(values.unique())}"
        raise ValueError(f"trial {trials[place]!r} has {message}")
    return knobs


def knob_dtype(column: str, values: pd.Series) -> str:
    """The pandas type of a knob's column: that of the field in the defenses' configurations.

    For knobs that no defense of this version has, the values decide.
    """
    name = column.removeprefix(KNOB)
    kinds: set[type] = {c.field_kinds()[name][0] for c in DEFENSES.values() if name in c.field_kinds()}
    if not kinds:
        kinds = {type(v.item() if isinstance(v, np.generic) else v) for v in values.dropna()}
    accepted: dict[str, set[type]] = {"boolean": {bool}, "Int64": {int}, "Float64": {int, float}}
    return next((dtype for dtype, types in accepted.items() if kinds and kinds <= types), "string")


def knobs_text(setting: Mapping[str, Any]) -> str:
    """A setting's knobs in a few words: those a sweep explores, then others that are not at their default
    (or that a sweep now knows by another name)."""
    import pandas as pd

    known = {k.removeprefix(KNOB): v for k, v in setting.items() if k.startswith(KNOB) and not pd.isna(v)}
    config = DEFENSES.get(str(setting["defense"]))
    shown = sorted(known)
    if config is not None:
        default = config().flat()
        shown = [name for name in config.KNOBS if name in known]
        renamed = bool(config.KNOBS) and not shown
        others = [n for n in default if n in known and n not in config.KNOBS]
        shown += [n for n in others if renamed or known[n] != default[n]]
    return " ".join(f"{name.replace('substitute_', 'sub_')}={_short(known[name])}" for name in shown)


def _short(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, (float, np.floating)) else str(value)
