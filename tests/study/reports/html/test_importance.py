"""Which knob matters: found where one does, not claimed where a forest knows nothing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestRegressor

from study.reports.html.importance import CHANCE, LEAST, _Forest, importances


def settings_of(values: list[float], budgets: list[float], rounds: list[int]) -> pd.DataFrame:
    rows = [
        {"trial": f"t{i}", "defense": "lpa", "cut": False, "confidence_distortion": b,
         "worst_attack_accuracy": 1.0, "worst_reconstruction_error": v,
         "defense.budget": b, "defense.rounds": r}
        for i, (v, b, r) in enumerate(zip(values, budgets, rounds, strict=True))
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_importance_finds_the_knob_that_matters() -> None:
    rng = np.random.default_rng(1)
    budgets, rounds = np.geomspace(1e-3, 0.5, 40), rng.integers(1, 20, 40)
    table = settings_of((0.03 + 0.002 * np.log(budgets)).tolist(), budgets.tolist(), rounds.tolist())
    found, silent = importances(table)
    assert silent == {}
    by_name = {i.objective: i for i in found}
    assert set(by_name) == {"confidence_distortion", "worst_reconstruction_error"}  # accuracy does not vary
    one = by_name["worst_reconstruction_error"]
    assert one.n == 40
    assert one.shares["budget"] > 0.9
    assert one.skill > 0.8


def test_no_importance_from_few_settings_or_a_forest_that_knows_nothing() -> None:
    rng = np.random.default_rng(2)
    few = settings_of([0.03] * (LEAST - 1), [0.1] * (LEAST - 1), [1] * (LEAST - 1))
    assert importances(few) == ([], {"lpa": f"settings with a worst case: {LEAST - 1}, needed: {LEAST}"})
    n = 24
    chance = settings_of(
        rng.normal(size=n).tolist(), rng.uniform(1e-3, 1, n).tolist(), rng.integers(1, 9, n).tolist()
    )
    (one,) = [i for i in importances(chance)[0] if i.objective == "worst_reconstruction_error"]
    assert one.skill <= CHANCE
    assert one.shares == {}
    same = settings_of(rng.normal(size=n).tolist(), rng.uniform(1e-3, 1, n).tolist(), [3] * n)
    assert "only budget" in importances(same)[1]["lpa"]


def test_the_forest_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=40)
    forests = (kind(20, random_state=0).fit(x, y) for kind in (_Forest, RandomForestRegressor))
    ours, theirs = (forest.predict(x + 0.1) for forest in forests)
    assert np.array_equal(ours, theirs)
