"""The search space: knobs as their files declare them; a setting's point is the inverse of drawing it."""

from __future__ import annotations

import optuna
import pytest

from mipoison.defenses import ANCHORS, DEFENSES
from study.search.space import (
    FAMILY,
    can_enqueue,
    distributions,
    flat_distributions,
    flat_parameters,
    parameters,
    searchable,
    starting_points,
    suggest,
)


def test_every_family_with_a_knob_is_searched_but_the_anchors() -> None:
    assert set(searchable()) == {name for name, cls in DEFENSES.items() if cls.KNOBS} - set(ANCHORS)


@pytest.mark.parametrize("family", searchable())
def test_a_drawn_setting_is_the_point_that_it_was_drawn_from(family: str) -> None:
    own = distributions([family], family)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    for _ in range(5):
        trial = study.ask()
        name, config = suggest(trial, [family])
        assert name == family
        assert trial.params == parameters(family, config.flat())
        assert trial.distributions == own
        assert can_enqueue([family], family, config.flat())


def test_a_flat_point_holds_every_familys_knobs() -> None:
    families = ["noise", "lpa"]
    point = flat_parameters("noise", {"budget": 0.5}, families)
    assert set(point) == set(flat_distributions(families))
    assert (point[FAMILY], point["noise.budget"]) == ("noise", 0.5)
    assert point["lpa.budget"] == DEFENSES["lpa"]().flat()["budget"]


def test_what_may_be_queued() -> None:
    assert not can_enqueue(["lpa"], "noise", {"budget": 0.1})
    assert not can_enqueue(["noise"], "noise", {"budget": 0.0})  # only its logarithm counts
    assert can_enqueue(["noise"], "noise", {"budget": 99.0})
    choice = next(name for name, knob in DEFENSES["lpa"].KNOBS.items() if knob.choices)
    assert not can_enqueue(["lpa"], "lpa", {choice: "gone"})


def test_starts_take_turns() -> None:
    families = ["noise", "rounding"]
    starts = starting_points(families)
    turns = [point[FAMILY] for point in starts]
    assert len(starts) == sum(len(DEFENSES[f].STARTS) for f in families)
    assert turns[: len(families)] == families
