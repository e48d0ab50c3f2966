"""Which knobs matter: fANOVA on a family's settings, with a word on whether its forest knows anything."""

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
"""Settings of a family below which no importance is told: a forest of fewer points is noise."""
MOST = 150
"""At most so many settings of a family are taken, evenly: a forest's time grows faster than its wisdom."""
TREES = 100
"""Of the forest that is asked how well it predicts."""
OBJECTIVE_NAMES = {
    "confidence_distortion": "distortion",
    "worst_attack_accuracy": "worst-case attack accuracy",
    "worst_reconstruction_error": "worst-case reconstruction error",
}


CHANCE = 0.1
"""R^2 out of bag that a forest may reach by luck on a few dozen settings whose knobs decide nothing."""


@dataclass(frozen=True)
class Importance:
    """Of one family and objective.

    Attributes:
        family, objective: which. n: settings it rests on.
        skill: R^2 of a random forest, each setting predicted by the trees that were not trained on it (out of
            bag); at most 1, and 0 or less if it predicts no better than the mean.
        shares: knob -> share of the variance that fANOVA gives it (they sum to 1); empty where skill is not
            above 0.
    """

    family: str
    objective: str
    n: int
    skill: float
    shares: dict[str, float]


def importances(settings: pd.DataFrame) -> tuple[list[Importance], dict[str, str]]:
    """fANOVA (Hutter et al. 2014, by Optuna) of every family and objective with enough settings.

    Args:
        settings: a ``settings_table``. Settings cut short or without a worst case do not count.

    Returns:
        The importances, and family -> why it has none.
    """
    whole = ~settings["cut"].fillna(False).astype(bool)
    rows = settings[whole].dropna(subset=[o.column for o in OBJECTIVES])
    found: list[Importance] = []
    silent: dict[str, str] = {}
    for family in sorted(set(settings["defense"]) - set(ANCHORS)):
        group = rows[rows["defense"] == family]
        group = group.iloc[np.linspace(0, len(group) - 1, min(len(group), MOST)).round().astype(int)]
        knobs = _varied(family, group)
        if len(group) < LEAST:
            silent[family] = f"settings with a worst case: {len(group)}, needed: {LEAST}"
        elif not knobs:
            silent[family] = "no knob was varied"
        elif len(knobs) == 1:
            silent[family] = f"only {knobs[0]} was varied: its doing, or chance"
        else:
            told = [_one(family, o.column, group, knobs) for o in OBJECTIVES]
            found += [i for i in told if i is not None]
    return found, silent


def _varied(family: str, group: pd.DataFrame) -> list[str]:
    columns = [c for c in group if c.startswith(KNOB) and group[c].notna().all() and group[c].nunique() > 1]
    knobs = DEFENSES[family].KNOBS if family in DEFENSES else {}
    return [c.removeprefix(KNOB) for c in columns if c.removeprefix(KNOB) in knobs]


class _Forest(RandomForestRegressor):
    """scikit-learn's, to the bit: its trees are made directly, as cloning one takes half of the time."""

    def _make_estimator(
        self, append: bool = True, random_state: np.random.RandomState | None = None
    ) -> DecisionTreeRegressor:
        assert random_state is not None
        assert not append
        number = random_state.randint(np.iinfo(np.int32).max)
        return DecisionTreeRegressor(max_features=self.max_features, random_state=number)


def _one(family: str, objective: str, group: pd.DataFrame, knobs: list[str]) -> Importance | None:
    y = group[objective].to_numpy(dtype=float)
    if np.ptp(y) == 0:
        return None  # nothing to explain
    x = _encoded(group, family, knobs)
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):  # a third of the time
        skill = float(_Forest(TREES, random_state=0, oob_score=True).fit(x, y).oob_score_)
    shares = _fanova(family, group, knobs, y) if skill > CHANCE else {}
    return Importance(family, objective, len(group), skill, shares)


def _encoded(group: pd.DataFrame, family: str, knobs: list[str]) -> NDArray[np.float64]:
    """Knobs as numbers: logarithms where the knob is searched on them, places of choices."""
    columns = []
    for name in knobs:
        values, knob = group[f"{KNOB}{name}"], DEFENSES[family].KNOBS[name]
        if knob.choices is not None:
            columns.append(pd.factorize(values.astype(str), sort=True)[0].astype(float))
        else:
            numbers = values.to_numpy(dtype=float)
            columns.append(np.log(numbers) if knob.log else numbers)
    return np.stack(columns, axis=1)


def _fanova(family: str, group: pd.DataFrame, knobs: list[str], y: NDArray[np.float64]) -> dict[str, float]:
    space = {name: _distribution(DEFENSES[family].KNOBS[name], group[f"{KNOB}{name}"]) for name in knobs}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study()
        for (_, row), value in zip(group.iterrows(), y, strict=True):
            params = {name: _plain(row[f"{KNOB}{name}"], DEFENSES[family].KNOBS[name]) for name in knobs}
            study.add_trial(
                optuna.trial.create_trial(params=params, distributions=dict(space), value=float(value))
            )
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: float(share) for name, share in shares.items()}


def _distribution(knob: Knob, values: pd.Series) -> optuna.distributions.BaseDistribution:
    """The knob's range, widened to what was tried (a starting point may lie outside)."""
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
    """A cell as Optuna takes it."""
    item = value.item() if isinstance(value, np.generic) else value
    if knob.choices is not None:
        return next((choice for choice in knob.choices if choice == item), str(item))
    return int(item) if knob.integer else float(item)  # type: ignore[arg-type]
