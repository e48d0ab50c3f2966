"""Made-up records in which a quantity of a setting has given values, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from study.paper.claims.evidence import Evidence, Setting
from study.paper.claims.quantities import Certified, Column, Drop, Excess, GainOver, Quantity, Strongest
from study.paper.claims.rules import Always, Difference, Mean, Rule
from study.paper.claims.trend import Trend

FLOOR = 0.05
"""Error of label-only, and of what another error is compared with."""
SEEDS = 5
JITTER = (0.0, 1e-6, -1e-6, 2e-6, -2e-6)


def row(trial: str, defense: str, attack: str, seed: int, **more: Any) -> dict[str, Any]:
    base = {
        "trial": trial, "defense": defense, "attack": attack, "seed": seed, "status": "ok",
        "dataset": "digits", "auxiliary": "same", "confidence_distortion": 0.01,
    }  # fmt: skip
    return base | more


def evidence(rows: Sequence[dict[str, Any]], name: str = "made-up", **every: Any) -> Evidence:
    return Evidence(name, pd.DataFrame([r | every for r in rows]))


def knobs(of: Setting, **more: Any) -> dict[str, Any]:
    values = {k: sum(v) / 2 if isinstance(v, tuple) else v for k, v in of.knobs.items()} | more
    return {f"defense.{k}": v for k, v in values.items()}


def rows_with(
    quantity: Quantity, of: Setting, values: Sequence[float], trial: str, **more: Any
) -> list[dict[str, Any]]:
    """Records in which the quantity of a setting has these values on seeds 0, 1, ..."""
    out = []
    for seed, value in enumerate(values):
        known = knobs(of) | more
        for pool in quantity.pools:
            match quantity:
                case Column(column=column, attack=attack):
                    known |= {column + pool: value}
                    names = {attack or "passive": {}}
                case Drop():
                    known |= {"model_accuracy": 0.9, "protected_accuracy": 0.9 - value}
                    names = {"passive": {}}
                case Strongest(column=column, above_label=above):
                    known |= {column + pool: value + 0.5 * above}
                    names = {"passive": {}}
                case Excess():
                    known |= {"reconstruction_error" + pool: FLOOR * (1 - value)}
                    names = {"passive": {}}
                case GainOver(attack=attack):
                    known |= {"reconstruction_error" + pool: FLOOR}
                    names = {attack: {}, "ridge": {"reconstruction_error" + p: FLOOR * (1 - value)
                                                   for p in quantity.pools}}  # fmt: skip
                case Certified():
                    known |= {"certified_excess": value, "certified_excess_test": value}
                    names = {"passive": {}}
                case _:
                    raise TypeError(quantity)
        out += [row(trial, of.defense, attack, seed, **(known | own)) for attack, own in names.items()]
    return out


def floor_rows(seeds: int, **columns: float) -> list[dict[str, Any]]:
    known = {"reconstruction_error": FLOOR, "reconstruction_error_test": FLOOR, "attack_accuracy": 0.5}
    known |= {"attack_accuracy_test": 0.5, "label_agreement": 1.0, **columns}
    return [row("label-only", "label-only", "passive", seed, **known) for seed in range(seeds)]


def joined(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records of one trial, attacker and seed made one; what comes later wins."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in rows:
        key = (one["trial"], one["attack"], one["seed"])
        found[key] = found.get(key, {}) | one
    return list(found.values())


def rows_for(rule: Rule, effects: Sequence[float]) -> list[dict[str, Any]]:
    """Records in which what the rule measures has these values by seed; less its threshold."""
    match rule:
        case Mean():
            values = [rule.threshold + e for e in effects]
            rows = rows_with(rule.quantity, rule.of, values, f"t-{rule.of.defense}")
        case Difference():
            threshold = 0.0 if rule.sign == "within" else rule.threshold
            wanted = [threshold + e for e in effects]
            base = 0.5 if isinstance(rule.quantity, Excess) else FLOOR
            how = {
                "plain": lambda d: base + d,
                "relative": lambda d: base * (1 + d),
                "log10": lambda d: base * 10**d,
            }
            second = rule.other or rule.quantity
            same = rule.of == rule.than
            name = "t-first" if same else "t-second"
            shared = {"defense.budget": 0.01} if rule.match == "budget" else {}
            first = rows_with(rule.quantity, rule.of, [how[rule.how](d) for d in wanted], "t-first", **shared)
            than = rows_with(second, rule.than, [base] * len(wanted), name, **shared)
            rows = joined([*than, *first])
            if rule.twice is not None:
                for quantity in (rule.quantity, second):
                    rows += rows_with(quantity, rule.twice, [base] * len(wanted), "t-twice")
                rows = joined(rows)
        case Trend():
            rows = []
            for i in range(rule.fewest + 1):
                values = [FLOOR + (1 if e > 0 else -1) * 0.001 * i for e in effects]
                more = {f"defense.{rule.knob}": 0.01 * (i + 1)}
                rows += rows_with(rule.quantity, rule.of, values, f"t-{i}", **more)
        case Always():
            defense = rule.of or Setting("rounding")
            middle = rule.least if rule.least > -1e9 else rule.most
            towards = 1 if rule.least > -1e9 else -1
            known = {} if rule.known is None else {rule.known: 0.1}
            values = [middle + towards * min(e, 0.0) for e in effects]
            rows = [
                row("t-always", defense.defense, "passive", s, **{rule.column: v}, **known, **knobs(defense))
                for s, v in enumerate(values)
            ]
        case _:
            raise TypeError(rule)
    named = {r["defense"] for r in rows}
    return rows if "label-only" in named else [*rows, *floor_rows(len(effects))]
