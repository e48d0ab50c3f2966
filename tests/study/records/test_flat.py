"""A setting out of the flat columns of its records."""

import math

import pandas as pd

from mipoison.defenses import DEFENSES
from study.records.flat import finite, knobs_of, same_value


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


def test_a_knob_has_a_value_within_rounding() -> None:
    assert same_value(0.1 + 0.2, 0.3)
    assert not same_value(0.3001, 0.3)
    assert same_value(3, 3.0)
    assert same_value(None, None)
    assert not same_value(None, 0.3)
    assert same_value("log", "log")
    assert not same_value(True, False)
