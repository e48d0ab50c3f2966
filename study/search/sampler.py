"""The multi-objective search: an Optuna study over the defenses' knobs, used through ask and tell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mipoison.config import Config, choose
from study.records.constraints import Constraints
from study.search import space
from study.search.objectives import SearchObjective, directions
from study.search.samplers import POPULATION
from study.search.samplers import SAMPLERS as SAMPLERS
from study.search.samplers import make_sampler as make_sampler

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True)
class Proposal:
    """A setting to evaluate: the number of its Optuna trial, the defense's name and its configuration."""

    number: int
    defense: str
    config: Config


class Search:
    """The Optuna study of a search: suggests settings and learns from their outcomes.

    Args:
        families: the defense families to search.
        sampler: a key of SAMPLERS. seed: the sampler's seed; a resumed search must use another one, or it
            would repeat its suggestions.
        objectives: name -> objective, in the order in which Optuna is told their values.
        constraints: Optuna gets each bounded face's distance from its bound; above zero is infeasible.
    """

    def __init__(
        self,
        families: list[str],
        *,
        sampler: str,
        seed: int,
        objectives: Mapping[str, SearchObjective],
        constraints: Constraints,
    ) -> None:
        import optuna

        for family in families:
            choose("defense", family, space.searchable())
        self.families, self.constraints = families, constraints
        self.objectives = dict(objectives)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            optuna.logging.set_verbosity(optuna.logging.WARNING)
            self.study = optuna.create_study(
                directions=list(directions(objectives).values()), sampler=make_sampler(sampler, seed)
            )
        self._asked: dict[int, optuna.Trial] = {}
        # NSGA-II recombines only parameters that all parents have. In the conditional space that is only the
        # family, so NSGA-II searches a flat space with the knobs of all families.
        self._flat = space.flat_distributions(families) if sampler == "nsga2" else None

    def enqueue(self, points: list[dict[str, Any]]) -> None:
        """Queue points of the space; :meth:`ask` returns them before it samples."""
        for point in points:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def ask(self) -> Proposal:
        """The next setting."""
        trial = self.study.ask(self._flat)
        defense, config = space.suggest(trial, self.families)
        self._asked[trial.number] = trial
        return Proposal(trial.number, defense, config)

    def tell(self, number: int, outcome: Mapping[str, float | None] | None) -> bool:
        """Report a setting's outcome. With a missing or non-finite objective the Optuna trial fails.

        Returns:
            Whether Optuna received objectives.
        """
        from optuna.trial import TrialState

        trial = self._asked.pop(number)
        values = self._values(outcome)
        if values is None:
            self.study.tell(trial, state=TrialState.FAIL)
            return False
        for name, violation in self.constraints.violations(outcome or {}).items():
            trial.set_constraint(name, violation)
        self.study.tell(trial, values)
        return True

    def add_finished(
        self, defense: str, knobs: Mapping[str, Any], outcome: Mapping[str, float | None]
    ) -> bool:
        """Add a setting that an earlier run evaluated; returns whether it could be added."""
        import optuna

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
                constraints=self.constraints.violations(outcome),
                # NSGA-II selects parents only among trials that have a generation.
                system_attrs={"NSGAIISampler:generation": self._generation()},
            )
        except ValueError:  # a setting outside today's space
            return False
        self.study.add_trial(frozen)
        return True

    def _generation(self) -> int:
        known = self.study.get_trials(deepcopy=False)  # copying all trials for each one would be quadratic
        return len(known) // POPULATION

    def _values(self, outcome: Mapping[str, float | None] | None) -> list[float] | None:
        return None if outcome is None else told_values(self.objectives, outcome)


def told_values(
    objectives: Mapping[str, SearchObjective], outcome: Mapping[str, float | None]
) -> list[float] | None:
    """What Optuna is told of an outcome; None if an objective is missing or not finite."""
    values = []
    for objective in objectives.values():
        value = outcome.get(objective.column)
        value = objective.missing if value is None else value
        if value is None or not math.isfinite(value):
            return None
        values.append(float(value))
    return values
