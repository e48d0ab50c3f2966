"""A setting out of the flat columns of its records."""

import math

import pandas as pd

from mipoison.defenses import DEFENSES
from study.records.flat import finite, knobs_of


def test_a_setting_comes_back_from_its_columns() -> None:
    for name, cls in DEFENSES.items():
        columns = {f"defense.{key}": value for key, value in cls().flat().items()}
        found = knobs_of({"defense": name, "defense.of_another": 1, **columns})
        assert cls.from_flat(found) == cls()  # type: ignore[attr-defined]


def test_kinds_are_those_of_the_fields() -> None:
    found = knobs_of(
        {"defense": "lpa", "defense.rounds": 7.0, "defense.budget": math.nan, "defense.loss": None}
    )
    assert found["rounds"] == 7
    assert type(found["rounds"]) is int
    assert "budget" not in found


def test_a_finite_number_or_nothing() -> None:
    assert [finite(v) for v in (None, pd.NA, math.nan, math.inf, 3, 0.5)] == [None] * 4 + [3.0, 0.5]
