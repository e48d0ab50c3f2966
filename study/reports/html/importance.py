"""Knob importance by fANOVA on a defense's settings, with the forest's skill out of bag."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
import sklearn
from numpy.typing import NDArray
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree import DecisionTreeRegressor

from mipoison.config import Knob
from mipoison.defenses import ANCHORS, DEFENSES
from study.analysis.frontier import OBJECTIVES
from study.analysis.knobs import KNOB

LEAST = 10
"""Fewest settings of a defense for which importance is computed: a forest of fewer points fits noise."""
MOST = 150
"""Most settings of a defense that are used, picked evenly: a forest's time grows faster than its accuracy."""
TREES = 100
"""Trees of the forest whose skill is measured."""
OBJECTIVE_NAMES = {
    "confidence_distortion": "distortion",
    "worst_attack_accuracy": "worst-case attack accuracy",
    "worst_reconstruction_error": "worst-case reconstruction error",
}


CHANCE = 0.1
"""R^2 out of bag that a forest may reach by chance on a few dozen settings whose knobs have no effect."""


@dataclass(frozen=True)
class Importance:
    """The importance of one defense's knobs for one objective.

    Attributes:
        n: number of settings.
        skill: R^2 of a random forest, each setting predicted by the trees that were not trained on it (out of
            bag); at most 1, and 0 or less if it predicts no better than the mean.
        shares: knob -> share of the variance by fANOVA (they sum to 1); empty where skill is at most CHANCE.
    """

    defense: str
    objective: str
    n: int
    skill: float
    shares: dict[str, float]


def importances(configurations: pd.DataFrame) -> tuple[list[Importance], dict[str, str]]:
    """Compute fANOVA (Hutter et al. 2014, by Optuna) for every defense and objective with enough settings.

    Args:
        configurations: a ``configuration_table``. Settings cut short or without a worst case are left out.

    Returns:
        The importances, and defense -> reason why it has none.
    """
    whole = ~configurations["cut"].fillna(False).astype(bool)
    rows = configurations[whole].dropna(subset=[o.column for o in OBJECTIVES])
    found: list[Importance] = []
    skipped: dict[str, str] = {}
    for defense in sorted(set(configurations["defense"]) - set(ANCHORS)):
        group = rows[rows["defense"] == defense]
        group = group.iloc[np.linspace(0, len(group) - 1, min(len(group), MOST)).round().astype(int)]
        knobs = _varied(defense, group)
        if len(group) < LEAST:
            skipped[defense] = f"settings with a worst case: {len(group)}, needed: {LEAST}"
        elif not knobs:
            skipped[defense] = "no knob was varied"
        elif len(knobs) == 1:
            skipped[defense] = f"only {knobs[0]} was varied: all effects are its own, or chance"
        else:
            computed = [_one(defense, o.column, group, knobs) for o in OBJECTIVES]
            found += [i for i in computed if i is not None]
    return found, skipped


def _varied(defense: str, group: pd.DataFrame) -> list[str]:
    columns = [c for c in group if c.startswith(KNOB) and group[c].notna().all() and group[c].nunique() > 1]
    knobs = DEFENSES[defense].KNOBS if defense in DEFENSES else {}
    return [c.removeprefix(KNOB) for c in columns if c.removeprefix(KNOB) in knobs]


class _Forest(RandomForestRegressor):
    """scikit-learn's forest with bit-identical results; making trees without cloning one halves the time."""

    def _make_estimator(
        self, append: bool = True, random_state: np.random.RandomState | None = None
    ) -> DecisionTreeRegressor:
        assert random_state is not None
        assert not append
        number = random_state.randint(np.iinfo(np.int32).max)
        return DecisionTreeRegressor(max_features=self.max_features, random_state=number)


def _one(defense: str, objective: str, group: pd.DataFrame, knobs: list[str]) -> Importance | None:
    y = group[objective].to_numpy(dtype=float)
    if np.ptp(y) == 0:
        return None  # nothing to explain
    x = _encoded(group, defense, knobs)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # these checks cost time
        skill = float(_Forest(TREES, random_state=0, oob_score=True).fit(x, y).oob_score_)
    shares = _fanova(defense, group, knobs, y) if skill > CHANCE else {}
    return Importance(defense, objective, len(group), skill, shares)


def _encoded(group: pd.DataFrame, defense: str, knobs: list[str]) -> NDArray[np.float64]:
    """Knobs as numbers: logarithms where the search uses a log scale, indices of choices."""
    columns = []
    for name in knobs:
        values, knob = group[f"{KNOB}{name}"], DEFENSES[defense].KNOBS[name]
        if knob.choices is not None:
            columns.append(pd.factorize(values.astype(str), sort=True)[0].astype(float))
        else:
            numbers = values.to_numpy(dtype=float)
            columns.append(np.log(numbers) if knob.log else numbers)
    return np.stack(columns, axis=1)


def _fanova(defense: str, group: pd.DataFrame, knobs: list[str], y: NDArray[np.float64]) -> dict[str, float]:
    space = {name: _distribution(DEFENSES[defense].KNOBS[name], group[f"{KNOB}{name}"]) for name in knobs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for (_, row), value in zip(group.iterrows(), y, strict=True):
            params = {name: _plain(row[f"{KNOB}{name}"], DEFENSES[defense].KNOBS[name]) for name in knobs}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=dict(space), value=float(value))
            )
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}


def _distribution(knob: Knob, values: pd.Series) -> optuna.distributions.BaseDistribution:
    """The knob's range, widened to the values tried (a starting point may lie outside)."""
    if knob.choices is not None:
        return optuna.distributions.CategoricalDistribution(
            list(dict.fromkeys([*knob.choices, *(_plain(v, knob) for v in values)]))
        )
    assert knob.low is not None
    assert knob.high is not None
    low, high = min(knob.low, float(values.min())), max(knob.high, float(values.max()))
    if knob.integer:
        return optuna.distributions.IntDistribution(int(low), int(high), log=knob.log)
    return optuna.distributions.FloatDistribution(float(low), float(high), log=knob.log)


def _plain(value: object, knob: Knob) -> bool | int | float | str:
    """A cell's value in the type that Optuna expects."""
    item = value.item() if isinstance(value, np.generic) else value
    if knob.choices is not None:
        return next((choice for choice in knob.choices if choice == item), str(item))
    return int(item) if knob.integer else float(item)  # type: ignore[arg-type]
