"""The search space and the search: only valid settings, exact objectives, earlier trials restored."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from mipoison.config import ConfigError
from mipoison.defenses import ANCHORS, DEFENSES
from study.records.constraints import Constraints
from study.search.objectives import OTHER_CLASSES, chosen, directions
from study.search.sampler import SAMPLERS, Search, make_sampler
from study.search.space import FAMILY, distributions, parameters, searchable, starting_points, suggest

THREE = chosen(OTHER_CLASSES)
DIRECTIONS = directions(THREE)
GOOD: dict[str, float | None] = {
    "confidence_distortion": 0.01,
    "worst_attack_accuracy": 0.6,
    "worst_reconstruction_error": 0.03,
    "accuracy_drop": 0.0,
}

BAD = dict(zip(GOOD, (0.5, 1.0, 0.001, 0.0), strict=True))


def make_search(
    sampler: str = "tpe",
    seed: int = 0,
    families: list[str] | None = None,
    drop: float = 0.02,
    **bounds: float,
) -> Search:
    return Search(
        families or searchable(),
        sampler=sampler,
        seed=seed,
        objectives=THREE,
        constraints=Constraints(max_accuracy_drop=drop, **bounds),
    )


def fake_outcome(number: int) -> dict[str, float | None]:
    """Objectives without a pattern, some infeasible."""
    u = [math.modf(number * k)[0] for k in (0.618, 0.414, 0.732, 0.236)]
    return dict(zip([*DIRECTIONS, "accuracy_drop"], (0.5 * u[0], u[1], 0.05 * u[2], 0.1 * u[3]), strict=True))


def draw(
    search: Search, n: int, outcome: Callable[[int], dict[str, float | None]] = fake_outcome
) -> list[dict[str, Any]]:
    seen = []
    for i in range(n):
        proposal = search.ask()
        seen.append(parameters(proposal.defense, proposal.config.flat()))
        search.tell(proposal.number, outcome(i))
    return seen


def states(search: Search) -> list[TrialState]:
    return [t.state for t in search.study.trials]


# ---------------------------------------------------------------- the space


def test_what_is_searched_and_what_is_not() -> None:
    assert set(searchable()) == {n for n, c in DEFENSES.items() if c.KNOBS} - set(ANCHORS)
    assert not set(searchable()) & set(ANCHORS)
    assert {"lpa", "lfp", "noise", "rounding"} <= set(searchable())


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_suggestion_is_valid_and_every_family_is_drawn(sampler: str) -> None:
    drawn = set()
    # Three searches: one population may lose a family by chance.
    for search, i in (
        (search, i) for search in (make_search(sampler, seed) for seed in (0, 1, 2)) for i in range(200)
    ):
        proposal = search.ask()
        cls = DEFENSES[proposal.defense]
        assert type(proposal.config) is cls  # constructing it has checked the values
        for name, knob in cls.KNOBS.items():
            value = proposal.config.knobs()[name]
            if knob.choices is not None:
                assert value in knob.choices
            else:
                assert knob.low <= value <= knob.high
                assert type(value) is (int if knob.integer else float)
        assert proposal.config == cls(**proposal.config.knobs())  # everything else at its default
        drawn.add(proposal.defense)
        search.tell(proposal.number, fake_outcome(i))
    assert drawn == set(searchable())


@pytest.mark.parametrize("family", searchable())
def test_the_ends_of_every_range_are_valid(family: str) -> None:
    cls = DEFENSES[family]
    for name, knob in cls.KNOBS.items():
        for value in knob.choices if knob.choices is not None else (knob.low, knob.high):
            cls(**{name: int(value) if knob.integer else value})


@pytest.mark.parametrize("family", searchable())
def test_parameters_are_the_inverse_of_suggest(family: str) -> None:
    search = make_search("random", families=[family])
    for _ in range(20):
        proposal = search.ask()
        point = parameters(proposal.defense, proposal.config.flat())
        assert point == search.study.trials[proposal.number].params
        assert (
            set(point)
            == set(distributions([family], family))
            == {FAMILY, *(f"{family}.{k}" for k in DEFENSES[family].KNOBS)}
        )
        assert suggest(optuna.trial.FixedTrial(point), [family]) == (family, proposal.config)


def test_starting_points_come_first_every_family_once_before_any_twice() -> None:
    search = make_search("random")
    search.enqueue(starting_points(search.families))
    first = [search.ask() for _ in search.families]
    assert [p.defense for p in first] == search.families
    assert {p.defense: p.config for p in first}["lpa"] == DEFENSES["lpa"]()
    again = [search.ask() for _ in range(sum(len(DEFENSES[f].STARTS) - 1 for f in search.families))]
    assert {p.config for p in first + again} == {
        DEFENSES[f].from_flat(dict(start)) for f in search.families for start in DEFENSES[f].STARTS
    }
    assert search.ask().config not in [p.config for p in first + again]


# ---------------------------------------------------------------- telling


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf, "absent"])
@pytest.mark.parametrize("objective", DIRECTIONS)
def test_a_missing_objective_is_a_failure(objective: str, value: Any) -> None:
    search = make_search()
    outcome = {k: v for k, v in GOOD.items() if k != objective} | (
        {} if value == "absent" else {objective: value}
    )
    assert search.tell(search.ask().number, outcome) is False
    assert states(search) == [TrialState.FAIL]
    assert search.study.trials[0].values is None
    assert search.add_finished("rounding", {"decimals": 3}, outcome) is False
    assert len(search.study.trials) == 1


def test_nothing_stays_running() -> None:
    search = make_search()
    asked = [search.ask() for _ in range(4)]
    outcomes = [GOOD, None, GOOD | {"worst_attack_accuracy": math.nan}, {}]
    told = [search.tell(p.number, o) for p, o in reversed(list(zip(asked, outcomes, strict=True)))]
    assert told == [False, False, False, True]
    assert states(search) == [TrialState.COMPLETE, *[TrialState.FAIL] * 3]
    assert search.study.trials[0].values == [GOOD[name] for name in DIRECTIONS]
    with pytest.raises(KeyError):  # a second tell
        search.tell(asked[0].number, GOOD)


def test_directions() -> None:
    assert DIRECTIONS == {
        "confidence_distortion": "minimize",
        "worst_attack_accuracy": "minimize",
        "worst_reconstruction_error": "maximize",
    }


@pytest.mark.parametrize(
    ("drop", "violates"), [(0.0, False), (0.0199, False), (0.03, True), (-0.01, False), (None, True)]
)
def test_a_violation_is_positive(drop: float | None, violates: bool) -> None:
    search = make_search(drop=0.02)
    outcome = GOOD | {"accuracy_drop": drop}
    search.tell(search.ask().number, outcome)
    search.add_finished("rounding", {"decimals": 3}, outcome)
    assert len(search.study.trials) == 2
    for trial in search.study.trials:
        assert (trial.constraints["accuracy_drop"] > 0) is violates
        if drop is not None:
            assert trial.constraints["accuracy_drop"] == pytest.approx(drop - 0.02)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_bound_is_a_constraint_of_optunas(sampler: str) -> None:
    search = make_search(sampler, min_top5_agreement=0.9, max_ece_increase=0.05)
    outcome = GOOD | {"accuracy_drop": 0.01, "top5_agreement": 0.8, "ece_increase": 0.05}
    search.tell(search.ask().number, outcome)
    search.add_finished("rounding", {"decimals": 3}, outcome)
    for trial in search.study.trials:
        expected = {"accuracy_drop": -0.01, "top5_agreement": 0.1, "ece_increase": 0.0}
        assert trial.constraints == pytest.approx(expected)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_avoids_what_breaks_a_bound(sampler: str) -> None:
    """Both families are equally good otherwise; one of them loses the order of the scores."""
    taught = make_search(sampler, seed=3, families=["noise", "rounding"], min_top5_agreement=0.9)
    for i in range(60):
        point = GOOD | {"confidence_distortion": 1e-3 + 1e-6 * i}
        taught.add_finished("rounding", {"decimals": 3}, point | {"top5_agreement": 0.95})
        taught.add_finished("noise", {"budget": 1e-3 + 1e-3 * i}, point | {"top5_agreement": 0.2})
    fine = GOOD | {"top5_agreement": 0.95}
    share = sum(p[FAMILY] == "rounding" for p in draw(taught, 20, lambda i: fine)) / 20
    assert share > 0.7  # chance: 1 / 2


# ---------------------------------------------------------------- a resumed search


@pytest.mark.parametrize("family", searchable())
def test_finished_settings_are_taught_as_they_were_found(family: str) -> None:
    search, later = make_search("random", families=[family]), make_search("random", seed=1)
    for i in range(5):
        proposal = search.ask()
        search.tell(proposal.number, fake_outcome(i))
        assert later.add_finished(proposal.defense, proposal.config.flat(), fake_outcome(i))
    assert states(later) == [TrialState.COMPLETE] * 5
    for was, taught in zip(search.study.trials, later.study.trials, strict=True):
        assert (taught.params, taught.values, taught.constraints) == (was.params, was.values, was.constraints)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_prefers_a_family_that_it_was_taught_is_better(sampler: str) -> None:
    taught = make_search(sampler, seed=3, families=["lfp", "lpa", "noise", "rounding"])
    for i in range(60):
        taught.add_finished("rounding", {"decimals": 3}, GOOD | {"confidence_distortion": 1e-3 + 1e-6 * i})
        taught.add_finished("noise", {"budget": 1e-3 + 1e-3 * i}, BAD)
    share = sum(p[FAMILY] == "rounding" for p in draw(taught, 20, lambda i: GOOD)) / 20
    assert share > 0.5  # chance: 1 / 4


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_the_sampler_prefers_knobs_that_it_was_taught_are_better(sampler: str) -> None:
    taught = make_search(sampler, seed=3, families=["noise"])
    for i in range(60):
        taught.add_finished(
            "noise", {"budget": 2e-4 + 1e-6 * i}, GOOD | {"confidence_distortion": 1e-3 + 1e-6 * i}
        )
        taught.add_finished("noise", {"budget": 0.1 + 1e-3 * i}, BAD)
    share = sum(p["noise.budget"] < 1e-3 for p in draw(taught, 20, lambda i: GOOD)) / 20
    assert share > 0.5  # chance: a quarter of the log range


def test_samplers_are_not_the_same_one() -> None:
    """After some trials, samplers with the same seed suggest different settings."""
    drawn = {name: draw(make_search(name), 100)[60:] for name in SAMPLERS}
    same = {(a, b) for a in drawn for b in drawn if a < b and drawn[a] == drawn[b]}
    assert same == set()


def test_a_setting_outside_the_space_is_left_out() -> None:
    search = make_search(families=["noise", "rounding"])
    assert not search.add_finished("lpa", DEFENSES["lpa"]().flat(), GOOD)  # no longer searched
    assert not search.add_finished("noise", {"budget": 1.4}, GOOD)  # outside the present range
    assert search.add_finished("noise", {"budget": 0.1, "randomness": "keyed"}, GOOD)
    assert len(search.study.trials) == 1


# ---------------------------------------------------------------- names and seeds


def test_unknown_names_list_the_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown sampler 'tpee' \(did you mean 'tpe'\?\); choose from: nsga2, random, tpe"
    ):
        make_sampler("tpee", 0)
    with pytest.raises(ConfigError, match=r"unknown defense 'lpaa'.*lfp, lpa, .*noise, .*rounding"):
        make_search(families=["lpaa"])
    for anchor in ANCHORS:
        with pytest.raises(ConfigError, match=f"unknown defense '{anchor}'"):
            make_search(families=["noise", anchor])


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_seed_repeats_its_suggestions(sampler: str) -> None:
    one, again, other = (draw(make_search(sampler, seed=seed), 40) for seed in (0, 0, 1000))
    assert one == again
    assert one != other
    assert not any(
        a == b for a, b in zip(one, other, strict=True) if a[FAMILY] != "rounding"
    )  # knobs, not one digit
