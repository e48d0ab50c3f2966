"""A setting's knobs as text."""

from __future__ import annotations

import pandas as pd

from study.analysis.frontier import (
    knobs_text,
)


def test_knobs_text_shows_explored_and_unusual_knobs():
    lpa = {"defense": "lpa", "defense.budget": 0.0123456, "defense.rounds": 7, "defense.target": "flipped"}
    lpa |= {"defense.scope": "sample", "defense.ratio": pd.NA, "defense.keep_label": True, "trial": "t"}
    assert knobs_text(lpa) == "budget=0.0123 rounds=7 scope=sample target=flipped"
    assert knobs_text({"defense": "new", "defense.b": True, "defense.a": 1}) == "a=1 b=yes"
    assert knobs_text({"defense": "none"}) == ""
