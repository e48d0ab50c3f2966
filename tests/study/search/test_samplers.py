"""The names of samplers stand for Optuna's samplers; the search's tests are in ``test_sampler.py``."""

from __future__ import annotations

import optuna
import pytest

from mipoison.config import ConfigError
from study.search.samplers import SAMPLERS, make_sampler


def test_each_name_makes_its_sampler() -> None:
    made = {name: type(make_sampler(name, 0)) for name in SAMPLERS}
    samplers = optuna.samplers
    assert made == {
        "tpe": samplers.TPESampler,
        "nsga2": samplers.NSGAIISampler,
        "random": samplers.RandomSampler,
    }


def test_an_unknown_name_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"did you mean 'tpe'.*nsga2, random, tpe"):
        make_sampler("tpee", 0)
