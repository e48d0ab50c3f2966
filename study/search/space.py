"""The search space: first the defense family, then the knobs that the family's config declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mipoison.config import Config, Knob, Plain
from mipoison.defenses import ANCHORS, DEFENSES

if TYPE_CHECKING:
    import optuna

FAMILY = "defense"


def searchable() -> list[str]:
    """The families with at least one knob, without the anchors, which every study evaluates."""
    return [name for name, cls in DEFENSES.items() if cls.KNOBS and name not in ANCHORS]


def distribution(knob: Knob) -> optuna.distributions.BaseDistribution:
    """A knob's range as an Optuna distribution."""
    import optuna

    if knob.choices is not None:
        return optuna.distributions.CategoricalDistribution(knob.choices)
    assert knob.low is not None
    assert knob.high is not None
    if knob.integer:
        return optuna.distributions.IntDistribution(int(knob.low), int(knob.high), log=knob.log)
    return optuna.distributions.FloatDistribution(knob.low, knob.high, log=knob.log)


def distributions(families: list[str], family: str) -> dict[str, optuna.distributions.BaseDistribution]:
    """The distributions of a setting of one family; knobs are named ``<family>.<knob>``."""
    import optuna

    own = {f"{family}.{name}": distribution(knob) for name, knob in DEFENSES[family].KNOBS.items()}
    return {FAMILY: optuna.distributions.CategoricalDistribution(families), **own}


def flat_distributions(families: list[str]) -> dict[str, optuna.distributions.BaseDistribution]:
    """The knobs of all families, for samplers that need a flat space; a setting uses its family's only."""
    return {name: d for family in families for name, d in distributions(families, family).items()}


def suggest(trial: optuna.Trial, families: list[str]) -> tuple[str, Config]:
    """Draw a setting from the conditional (define-by-run) space."""
    family = trial.suggest_categorical(FAMILY, families)
    knobs = {name: _draw(trial, f"{family}.{name}", knob) for name, knob in DEFENSES[family].KNOBS.items()}
    return family, DEFENSES[family](**knobs)


def _draw(trial: optuna.Trial, name: str, knob: Knob) -> Plain | None:
    if knob.choices is not None:
        return trial.suggest_categorical(name, knob.choices)
    assert knob.low is not None
    assert knob.high is not None
    if knob.integer:
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(name, knob.low, knob.high, log=knob.log)


def parameters(family: str, knobs: Mapping[str, Plain | None]) -> dict[str, Any]:
    """A setting's point in the space (inverse of :func:`suggest`); knobs outside the space are left out.

    Raises:
        ConfigError: no setting of the family.
    """
    point = DEFENSES[family].recorded(knobs).knobs()
    return {FAMILY: family, **{f"{family}.{name}": value for name, value in point.items()}}


def can_enqueue(families: list[str], family: str, knobs: Mapping[str, Plain | None]) -> bool:
    """Whether a setting may be queued: its family is searched, and every choice is a valid one.

    Numbers may lie outside their ranges, as starting points do, but those on a log scale must be positive.
    """
    return family in families and all(
        _can_enqueue(knob, knobs[name]) for name, knob in DEFENSES[family].KNOBS.items() if name in knobs
    )


def _can_enqueue(knob: Knob, value: Plain | None) -> bool:
    if knob.choices is not None:
        return value in knob.choices
    return isinstance(value, int | float) and (value > 0 or not knob.log)


def flat_parameters(family: str, knobs: Mapping[str, Plain | None], families: list[str]) -> dict[str, Any]:
    """A setting's parameters in the flat space, with the other families' knobs at their defaults."""
    others = {k: v for f in families for k, v in parameters(f, DEFENSES[f]().flat()).items()}
    return others | parameters(family, knobs)


def starting_points(families: list[str]) -> list[dict[str, Any]]:
    """The starting points that the families declare: the first one of each, then the second, and so on."""
    longest = max((len(DEFENSES[f].STARTS) for f in families), default=0)
    return [
        parameters(family, DEFENSES[family].from_flat(dict(DEFENSES[family].STARTS[i])).flat())
        for i in range(longest)
        for family in families
        if i < len(DEFENSES[family].STARTS)
    ]
