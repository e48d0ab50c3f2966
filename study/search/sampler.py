"""The multi-objective search: an Optuna study over the space, asked for settings and told objectives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import optuna
from optuna.trial import TrialState

from mipoison.config import Config, choose
from study.analysis.frontier import OBJECTIVES
from study.search import space

DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {
    o.column: "maximize" if o.maximise else "minimize" for o in OBJECTIVES
}
CONSTRAINT = "accuracy_drop"
"""Told to Optuna as the drop minus its limit: above zero violates."""


POPULATION = 20
"""Trials of one generation of NSGA-II."""


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """``tpe``, ``nsga2`` or ``random``."""
    choose("sampler", name, SAMPLERS)
    return SAMPLERS[name](seed)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION, mutation_prob=0.2)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}


@dataclass(frozen=True)
class Proposal:
    """A setting to be evaluated: the Optuna trial's number, the defense's name and its configuration."""

    number: int
    defense: str
    config: Config


class Search:
    """Ask for settings, tell objectives.

    Args:
        families: the defense families searched.
        sampler: a name of SAMPLERS. seed: of the sampler; a resumed search must use another one, or it would
            repeat its suggestions.
        max_accuracy_drop: settings that cost more model accuracy than this are infeasible.
    """

    def __init__(self, families: list[str], *, sampler: str, seed: int, max_accuracy_drop: float) -> None:
        for family in families:
            choose("defense", family, space.searchable())
        self.families, self.max_accuracy_drop = families, max_accuracy_drop
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self.study = optuna.create_study(
                directions=list(DIRECTIONS.values()), sampler=make_sampler(sampler, seed)
            )
        self._asked: dict[int, optuna.Trial] = {}
        # A genetic algorithm crosses what all parents have: in the conditional space, the family alone.
        self._flat = space.flat_distributions(families) if sampler == "nsga2" else None

    def enqueue(self, points: list[dict[str, Any]]) -> None:
        """Queue points of the space; they are asked before anything is sampled."""
        for point in points:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def ask(self) -> Proposal:
        """The next setting."""
        trial = self.study.ask(self._flat)
        defense, config = space.suggest(trial, self.families)
        self._asked[trial.number] = trial
        return Proposal(trial.number, defense, config)

    def tell(self, number: int, outcome: Mapping[str, float | None] | None) -> bool:
        """Report a setting's outcome; a missing or non-finite objective is a failure, never a number.

        Returns:
            Whether the outcome counted.
        """
        trial = self._asked.pop(number)
        values = self._values(outcome)
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        trial.set_constraint(CONSTRAINT, self._violation(outcome or {}))
        self.study.tell(trial, values)
        return True

    def add_finished(
        self, defense: str, knobs: Mapping[str, Any], outcome: Mapping[str, float | None]
    ) -> bool:
        """Teach the search a setting that was evaluated before (a resumed study)."""
        values = self._values(outcome)
        if values is None or defense not in self.families:
            return False
        try:
            frozen = optuna.trial.create_trial(
                params=(
                    space.flat_parameters(defense, knobs, self.families)
                    if self._flat
                    else space.parameters(defense, knobs)
                ),
                distributions=self._flat or space.distributions(self.families, defense),
                values=values,
                constraints={CONSTRAINT: self._violation(outcome)},
                # NSGA-II takes parents only from trials that belong to a generation.
                system_attrs={"NSGAIISampler:generation": self._generation()},
            )
        except ValueError:  # a setting outside today's space
            return False
        self.study.add_trial(frozen)
        return True

    def _generation(self) -> int:
        known = self.study.get_trials(deepcopy=False)  # a copy of them all for each would be quadratic
        return len(known) // POPULATION

    def _violation(self, outcome: Mapping[str, float | None]) -> float:
        drop = outcome.get(CONSTRAINT)
        return (0.0 if drop is None else float(drop)) - self.max_accuracy_drop

    @staticmethod
    def _values(outcome: Mapping[str, float | None] | None) -> list[float] | None:
        values = [None if outcome is None else outcome.get(name) for name in DIRECTIONS]
        if any(v is None or not math.isfinite(v) for v in values):
            return None
        return [float(v) for v in values if v is not None]
