"""Values of records as the checks read them, and the records that a record is compared with."""

import math
from typing import Any

import numpy as np
import pytest

from mipoison.metrics.check_context import CheckContext, errors, missing, number, ok, same, settings

ROW: dict[str, Any] = {
    "dataset": "digits", "auxiliary": "same", "split": "a", "seed": 0, "victim": "v", "victim.width": 8,
    "defense": "noise", "defense.budget": 0.1, "defense.rounds": None, "attack": "ridge", "status": "ok",
    "reconstruction_error": 0.02,
}  # fmt: skip


def test_none_and_nan_are_missing_and_zero_is_not() -> None:
    assert [missing(v) for v in (None, math.nan, np.float64("nan"), 0, 0.0, False, "", "nan")] == [
        True, True, True, False, False, False, False, False
    ]  # fmt: skip


def test_a_number_is_finite_or_missing() -> None:
    assert number(ROW, "reconstruction_error") == 0.02
    assert number({"x": np.int64(3)}, "x") == 3.0
    assert number(ROW, "nothing") is None
    for value in (math.inf, True, "0.02"):
        with pytest.raises(ValueError, match="not a finite number"):
            number({"x": value}, "x")


def test_settings_are_a_column_and_those_below_it() -> None:
    assert settings(ROW, "defense") == {"defense": "noise", "defense.budget": 0.1}
    assert settings(ROW | {"defense2": "x"}, "defense") == settings(ROW, "defense")
    assert same(ROW, ROW | {"defense.rounds": math.nan}, ("defense",))
    assert not same(ROW, ROW | {"defense.budget": 0.2}, ("defense",))


def test_a_context_holds_the_records_of_the_same_data_victim_and_seed() -> None:
    other_attack = ROW | {"attack": "knn"}
    undefended = ROW | {"defense": "none", "defense.budget": None}
    label_only = undefended | {"defense": "label-only"}
    strangers = [
        ROW | {"seed": 1}, ROW | {"split": "b"}, ROW | {"victim.width": 16}, ROW | {"defense.budget": 0.2}
    ]  # fmt: skip
    found = CheckContext.of(
        ROW,
        [ROW, other_attack, undefended, label_only, *strangers],
        undefended="none",
        label_only="label-only",
    )
    assert found == CheckContext((ROW, other_attack), (undefended,), (label_only,))


def test_errors_of_records_that_succeeded() -> None:
    failed = ROW | {"status": "failed", "reconstruction_error": None}
    assert errors([ROW, failed, ROW | {"reconstruction_error": 0.03}]) == [0.02, 0.03]
    assert not ok(failed)
    with pytest.raises(ValueError, match="record has no status; its keys are: x"):
        ok({"x": 1})
