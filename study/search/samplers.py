"""The samplers of Optuna that a search can use, by the names that ``--sampler`` takes.

Optuna is imported when a sampler is made: the names alone are wanted by ``--help``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mipoison.config import choose

if TYPE_CHECKING:
    import optuna

POPULATION = 20
"""Trials of one generation of NSGA-II."""


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """The Optuna sampler with this name (a key of :data:`SAMPLERS`)."""
    choose("sampler", name, SAMPLERS)
    return SAMPLERS[name](seed)


def _tpe(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)


def _nsga2(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION, mutation_prob=0.2)


def _random(seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    return optuna.samplers.RandomSampler(seed=seed)


SAMPLERS = {"tpe": _tpe, "nsga2": _nsga2, "random": _random}
"""Name -> a function that makes the sampler with a seed."""
